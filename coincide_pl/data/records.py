"""Records: the one form in which samples travel, whatever file they came from."""

from __future__ import annotations

import gc
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coincide_pl.errors import DataError
from coincide_pl.files import PART, beside

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)
ROLE_NUMBERS = {role: number for number, role in enumerate(ROLES)}

IMAGE_MARK = "<image>"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says; `IMAGE_MARK` in a user's text stands where an image goes."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One sample: a conversation about no, one or several images.

    Attributes:
        id: the sample's name in its data set.
        images: paths relative to the data set's image folder, in order of their marks.
        turns: the conversation.
        source: the task or data set it came from, if the data says.
        number: its place in the data set's files, where some may have been left out.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    source: str | None = None
    number: int | None = field(default=None, compare=False)


class Unusable(DataError):
    """A record or an image that can't be used; `kind` says why in few words, to be counted."""

    def __init__(self, kind: str, message: str) -> None:
        """Keeps both."""
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return Unusable, (self.kind, str(self))


SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("roles", pa.list_(pa.int8())),
        ("texts", pa.list_(pa.string())),
        ("source", pa.string()),
    ]
)
ROWS_PER_CHUNK = 8192


class Records(Sequence[Record]):
    """Records in a memory-mapped Arrow file: reopened at once, shared by all worker processes.

    Attributes:
        path: the Arrow file.
        image_root: folder that the image paths are relative to.
        fingerprint: digest of all records, wherever they and their images lie.
        made_from: what the writer wants to compare when it finds the file again.
        notes: what the writer found out, see `Reader.records`.
    """

    def __init__(self, path: str | Path) -> None:
        """Maps a file that `write` made.

        Raises:
            DataError: the file is missing, damaged, or no such file.
        """
        self.path = Path(path)
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
            head = json.loads(self._table.schema.metadata[b"coincide_pl"])
            self.image_root = Path(head["image_root"])
            self.fingerprint: str = head["fingerprint"]
            self.made_from: dict[str, Any] = head["made_from"]
            self.notes: dict[str, Any] = head["notes"]
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a file of records ({type(error).__name__})") from error
        chunks = self._table.column("id").chunks
        self._starts = np.cumsum([0] + [len(chunk) for chunk in chunks])

    @classmethod
    def write(
        cls,
        path: str | Path,
        records: Iterable[Record],
        *,
        image_root: Path,
        made_from: dict[str, Any],
        sift: Callable[[Records], tuple[np.ndarray, dict[str, Any]]] | None = None,
    ) -> Records:
        """Write records one chunk at a time, then put the file in place and open it.

        Args:
            path: the file to make.
            records: what goes in, in order.
            image_root: folder that their image paths are relative to.
            made_from: what the caller wants to compare when it finds the file again.
            sift: looks through all records, and returns which of them stay, bool [N], and notes
                to keep with them.
        """
        head = {
            "image_root": str(image_root),
            "made_from": made_from,
            "fingerprint": "",
            "notes": {},
        }

        def schema() -> pa.Schema:
            return SCHEMA.with_metadata({"coincide_pl": json.dumps(head)})

        with beside(path) as aside:
            body = aside.with_suffix(f".body{PART}")
            with (
                _uncollected(),
                pa.OSFile(str(body), "wb") as file,
                pa.ipc.new_file(file, schema()) as writer,
            ):
                for chunk in _chunks(records):
                    writer.write_batch(chunk)
            source = cls(body)
            kept = np.ones(len(source), bool)
            if sift is not None:
                kept, head["notes"] = sift(source)
            head["fingerprint"] = _digest(source._kept(kept))
            # The digest is known at the end only, and Arrow keeps metadata in front: copy once.
            with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, schema()) as writer:
                for chunk in source._kept(kept):
                    writer.write_batch(chunk)
        return cls(path)

    def _kept(self, kept: np.ndarray) -> Iterator[pa.RecordBatch]:
        """The chunks, with only the rows where `kept`, bool [N], is true."""
        for start, chunk in zip(self._starts, self._table.to_batches(), strict=False):
            mask = kept[start : start + len(chunk)]
            yield chunk if mask.all() else chunk.filter(pa.array(mask))

    def __reduce__(self) -> tuple[type[Records], tuple[Path]]:
        return Records, (self.path,)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        at = index - int(self._starts[chunk])
        row = {name: self._table.column(name).chunk(chunk)[at].as_py() for name in SCHEMA.names}
        turns = zip(row["roles"], row["texts"], strict=True)
        return Record(
            id=row["id"],
            images=tuple(row["images"]),
            turns=tuple(Turn(ROLES[role], text) for role, text in turns),
            source=row["source"],
            number=row["number"],
        )

    def name(self, index: int) -> str:
        """The source file, number and id of a record, to tell the user where to look."""
        record = self[index]
        starts = self.notes.get("starts") or [[str(self.path), 0]]
        return f"{place(starts, record.number)} (id {record.id[:80]!r})"

    @property
    def numbers(self) -> np.ndarray:
        """Each record's place in the data set's files, int64 [N]; what `write_subset` takes."""
        return self._table.column("number").to_numpy()

    @property
    def text_lengths(self) -> np.ndarray:
        """UTF-8 bytes of all turns, int64 [N]."""
        return np.concatenate([np.zeros(0, np.int64), *map(_lengths, self._chunks("texts"))])

    @property
    def image_counts(self) -> np.ndarray:
        """Images per record, int64 [N]."""
        counts = pc.list_value_length(self._table.column("images"))
        return counts.to_numpy().astype(np.int64)

    @property
    def image_codes(self) -> np.ndarray:
        """A number per distinct first image, int64 [N]; -1 where there is none."""
        counts = self.image_counts
        codes = np.full(len(self), -1, np.int64)
        if counts.any():
            flat = pa.chunked_array([chunk.flatten() for chunk in self._chunks("images")])
            first = (np.cumsum(counts) - counts)[counts > 0]
            names = flat.combine_chunks().take(pa.array(first)).dictionary_encode()
            codes[counts > 0] = names.indices.to_numpy(zero_copy_only=False)
        return codes

    @property
    def images(self) -> tuple[dict[str, int], list[np.ndarray]]:
        """Distinct images by path, with a number each, and the rows int64 that show each."""
        flat = self._table.column("images").combine_chunks().flatten().dictionary_encode()
        rows = np.repeat(np.arange(len(self)), self.image_counts)
        codes = flat.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        names = {name: number for number, name in enumerate(flat.dictionary.to_pylist())}
        ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
        return names, np.split(rows[order], ends) if names else []

    @property
    def sources(self) -> list[str | None]:
        """The source of every record, [N]."""
        return self._table.column("source").to_pylist()

    def _chunks(self, column: str) -> list[Any]:
        return self._table.column(column).chunks


@contextmanager
def _uncollected() -> Iterator[None]:
    """Reading makes millions of objects and no cycles; to look for those doubles its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def place(starts: Sequence[Sequence[Any]], number: int) -> str:
    """The file and the number in it of a data set's `number`-th record.

    Args:
        starts: the files, each with the number of its first record.
        number: counted over all files.
    """
    file, first = starts[bisect_right([first for _, first in starts], number) - 1]
    return f"{file}: record {number - first}"


def _chunks(records: Iterable[Record]) -> Iterator[pa.RecordBatch]:
    rows: list[Record] = []
    count = 0
    for record in records:
        rows.append(record)
        if len(rows) == ROWS_PER_CHUNK:
            yield _chunk(rows, count)
            count += len(rows)
            rows = []
    if rows:
        yield _chunk(rows, count)


def _chunk(rows: list[Record], first: int) -> pa.RecordBatch:
    numbers = [first + i if r.number is None else r.number for i, r in enumerate(rows)]
    turns = [turn for record in rows for turn in record.turns]
    ends = np.cumsum([0] + [len(record.turns) for record in rows], dtype=np.int32)
    roles = pa.array([ROLE_NUMBERS[turn.role] for turn in turns], pa.int8())
    texts = pa.array([turn.text for turn in turns], pa.string())
    return pa.record_batch(
        [
            pa.array(numbers, pa.int64()),
            pa.array([r.id for r in rows], pa.string()),
            pa.array([r.images for r in rows], pa.list_(pa.string())),
            pa.ListArray.from_arrays(ends, roles),
            pa.ListArray.from_arrays(ends, texts),
            pa.array([r.source for r in rows], pa.string()),
        ],
        schema=SCHEMA,
    )


def _digest(chunks: Iterable[pa.RecordBatch]) -> str:
    """Of all but the numbers; of each column apart, so that it does not depend on the chunks."""
    digests: dict[str, Any] = {}

    def add(name: str, values: Any) -> None:
        digests.setdefault(name, hashlib.blake2b(digest_size=16)).update(values)

    for chunk in chunks:
        for name in SCHEMA.names[1:]:
            values = chunk.column(name)
            if pa.types.is_list(values.type):
                add(f"{name} counts", pc.list_value_length(values).to_numpy())
                values = values.flatten()
            if pa.types.is_string(values.type):
                lengths = pc.fill_null(pc.binary_length(values), -1).to_numpy()
                add(f"{name} lengths", lengths)
                if values.buffers()[2] is not None:
                    add(name, memoryview(values.buffers()[2])[slice(*_span(values))])
            else:
                add(name, values.to_numpy())
    whole = {name: digest.hexdigest() for name, digest in sorted(digests.items())}
    return hashlib.blake2b(json.dumps(whole).encode(), digest_size=16).hexdigest()


def _span(texts: pa.StringArray) -> tuple[int, int]:
    """Where the bytes of an array of strings begin and end in its buffer."""
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :]
    return (int(ends[0]), int(ends[len(texts)])) if len(texts) else (0, 0)


def _lengths(texts: pa.ListArray) -> np.ndarray:
    """UTF-8 bytes of all strings of each list, int64."""
    sizes = pc.binary_length(texts.flatten()).to_numpy()
    totals = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    counts = pc.list_value_length(texts).to_numpy()
    ends = np.cumsum(counts, dtype=np.int64)
    return totals[ends] - totals[ends - counts]

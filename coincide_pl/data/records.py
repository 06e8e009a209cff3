"""Records: the one form in which samples travel, whatever file they came from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coincide_pl.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)

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
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    source: str | None = None


SCHEMA = pa.schema(
    [
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
    ) -> Records:
        """Write records one chunk at a time, then put the file in place and open it.

        Args:
            path: the file to make.
            records: what goes in, in order.
            image_root: folder that their image paths are relative to.
            made_from: what the caller wants to compare when it finds the file again.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        digest = hashlib.blake2b(digest_size=16)
        body = target.with_name(f".{target.name}.{os.getpid()}.body")
        try:
            with pa.OSFile(str(body), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
                for chunk in _chunks(records, digest):
                    writer.write_batch(chunk)
            head = {
                "image_root": str(image_root),
                "fingerprint": digest.hexdigest(),
                "made_from": made_from,
            }
            schema = SCHEMA.with_metadata({"coincide_pl": json.dumps(head)})
            # The digest is known at the end only, and Arrow keeps metadata in front: copy once.
            source = pa.ipc.open_file(pa.memory_map(str(body)))
            with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                for i in range(source.num_record_batches):
                    writer.write_batch(source.get_batch(i))
            os.replace(aside, target)
        finally:
            body.unlink(missing_ok=True)
            aside.unlink(missing_ok=True)
        return cls(target)

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
        )

    def name(self, index: int) -> str:
        """The source file, number and id of a record, to tell the user where to look."""
        files = self.made_from.get("files") or [[self.path]]
        return f"{files[0][0]}: record {index} (id {self[index].id[:80]!r})"

    @property
    def text_lengths(self) -> np.ndarray:
        """UTF-8 bytes of all turns, int64 [N]."""
        texts = self._table.column("texts").combine_chunks()
        sizes = pc.binary_length(texts.flatten()).to_numpy(zero_copy_only=False)
        return _sums(sizes, pc.list_value_length(texts).to_numpy(zero_copy_only=False))

    @property
    def image_counts(self) -> np.ndarray:
        """Images per record, int64 [N]."""
        counts = pc.list_value_length(self._table.column("images"))
        return counts.to_numpy(zero_copy_only=False).astype(np.int64)

    @property
    def image_codes(self) -> np.ndarray:
        """A number per distinct first image, int64 [N]; -1 where there is none."""
        counts = self.image_counts
        codes = np.full(len(self), -1, np.int64)
        if counts.any():
            flat = self._table.column("images").combine_chunks().flatten()
            first = (np.cumsum(counts) - counts)[counts > 0]
            names = flat.take(pa.array(first)).dictionary_encode()
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
        return names, np.split(rows[order], ends)

    @property
    def sources(self) -> list[str | None]:
        """The source of every record, [N]."""
        return self._table.column("source").to_pylist()


def _chunks(records: Iterable[Record], digest: Any) -> Iterator[pa.RecordBatch]:
    rows: list[Record] = []
    for record in records:
        digest.update(
            json.dumps(
                [record.id, record.images, [(t.role, t.text) for t in record.turns], record.source]
            ).encode()
        )
        rows.append(record)
        if len(rows) == ROWS_PER_CHUNK:
            yield _chunk(rows)
            rows = []
    if rows:
        yield _chunk(rows)


def _chunk(rows: list[Record]) -> pa.RecordBatch:
    return pa.record_batch(
        [
            pa.array([r.id for r in rows], pa.string()),
            pa.array([r.images for r in rows], pa.list_(pa.string())),
            pa.array([[ROLES.index(t.role) for t in r.turns] for r in rows], pa.list_(pa.int8())),
            pa.array([[t.text for t in r.turns] for r in rows], pa.list_(pa.string())),
            pa.array([r.source for r in rows], pa.string()),
        ],
        schema=SCHEMA,
    )


def _sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs of `values`, as long as `counts` says."""
    totals = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(counts, dtype=np.int64)
    return totals[ends] - totals[ends - counts]

"""All records of a data set, in a memory-mapped file."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coincide_pl.data.columns import (
    SCHEMA,
    chunks,
    digest,
    total_lengths,
    without_garbage_collection,
)
from coincide_pl.data.record import ROLES, UNNAMED, Record, Turn
from coincide_pl.errors import DataError
from coincide_pl.files import PART, beside


@dataclass
class Notes:
    """What a reader found out while it read, kept with the records.

    Attributes:
        starts: the files that records are in, each with the number of its first record.
        left_out_images: images that can't be used, with size in bytes and time of change in ns of
            each; None where there is none.
        messages: lines that say what became of the records.
        images_named_by_content: whether the reader wrote the images itself, each under a name that
            its content makes.
    """

    starts: Sequence[tuple[str, int]] = ()
    left_out_images: dict[str, list[int] | None] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    images_named_by_content: bool = False


class Records(Sequence[Record]):
    """Records in a memory-mapped Arrow file: reopened at once, shared by all worker processes.

    Attributes:
        path: the Arrow file.
        image_root: folder that the image paths are relative to.
        fingerprint: digest of all records, wherever they and their images lie.
        notes: what the reader found out.
    """

    def __init__(self, path: str | Path) -> None:
        """Maps a file that `write` made.

        Args:
            path: the Arrow file.

        Raises:
            DataError: the file is missing, damaged, or no such file.
        """
        self.path = Path(path)
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
            head = json.loads(self._table.schema.metadata[b"coincide_pl"])
            self.image_root = Path(head["image_root"])
            self.fingerprint: str = head["fingerprint"]
            self.notes = Notes(**head["notes"])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a file of records ({type(error).__name__})") from error
        self._starts = np.cumsum([0] + [len(chunk) for chunk in self._chunks("id")])

    @classmethod
    def write(
        cls,
        path: str | Path,
        records: Iterable[Record],
        *,
        image_root: Path,
        sift: Callable[[Records], tuple[npt.NDArray[np.bool_], Notes]] | None = None,
    ) -> Records:
        """Write records one chunk at a time, then put the file in place and open it.

        Args:
            path: the file to make.
            records: what goes in, in order.
            image_root: folder that their image paths are relative to.
            sift: looks through all records, and returns which of them stay, bool [N], and notes
                to keep with them.

        Raises:
            FileError: it can't be written.
        """

        def schema(fingerprint: str, notes: Notes) -> pa.Schema:
            about = {"image_root": str(image_root), "fingerprint": fingerprint}
            text = json.dumps({**about, "notes": asdict(notes)})
            return SCHEMA.with_metadata({"coincide_pl": text})

        with beside(path) as aside:
            body = aside.with_suffix(f".body{PART}")
            with (
                without_garbage_collection(),
                pa.OSFile(str(body), "wb") as file,
                pa.ipc.new_file(file, schema("", Notes())) as writer,
            ):
                for chunk in chunks(records):
                    writer.write_batch(chunk)
            source = cls(body)
            kept, notes = np.ones(len(source), bool), Notes()
            if sift is not None:
                kept, notes = sift(source)
            head = schema(digest(source._kept(kept)), notes)
            # The digest is known at the end only, and Arrow keeps metadata in front: copy once.
            with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, head) as writer:
                for chunk in source._kept(kept):
                    writer.write_batch(chunk)
        return cls(path)

    def _kept(self, kept: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
        """The chunks, with only the rows where `kept`, bool [N], is true."""
        for start, chunk in zip(self._starts, self._table.to_batches(), strict=False):
            mask = kept[start : start + len(chunk)]
            yield chunk if mask.all() else chunk.filter(pa.array(mask))

    def __reduce__(self) -> tuple[type[Records], tuple[Path]]:
        return Records, (self.path,)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
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
        starts = self.notes.starts or [(str(self.path), 0)]
        return f"{place(starts, record.number or 0)} (id {record.id[:80]!r})"

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Each record's place in the data set's files, int64 [N]; what `write_subset` takes."""
        return cast("npt.NDArray[np.int64]", self._table.column("number").to_numpy())

    @property
    def text_lengths(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of all turns, int64 [N]."""
        return np.concatenate([np.zeros(0, np.int64), *map(total_lengths, self._chunks("texts"))])

    @property
    def image_counts(self) -> npt.NDArray[np.int64]:
        """Images per record, int64 [N]."""
        counts = pc.list_value_length(self._table.column("images"))
        return np.asarray(counts.to_numpy(), np.int64)

    @property
    def image_codes(self) -> npt.NDArray[np.int64]:
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
    def image_names(self) -> list[str]:
        """Paths of the distinct images, in the order in which the records show them first."""
        return list(self._table.column("images").combine_chunks().flatten().unique().to_pylist())

    @property
    def images(self) -> tuple[dict[str, int], list[npt.NDArray[np.int64]]]:
        """Distinct images by path, with a number each, and the rows int64 that show each."""
        flat = self._table.column("images").combine_chunks().flatten().dictionary_encode()
        rows = np.repeat(np.arange(len(self)), self.image_counts)
        codes = flat.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        names = {name: number for number, name in enumerate(flat.dictionary.to_pylist())}
        ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
        return names, np.split(rows[order], ends) if names else []

    @property
    def sources(self) -> list[str]:
        """The source of every record, [N]; `UNNAMED` stands for none."""
        return [name or UNNAMED for name in self._table.column("source").to_pylist()]

    @property
    def source_names(self) -> list[str]:
        """The distinct sources, sorted; `UNNAMED` stands for none."""
        found = self._table.column("source").unique().to_pylist()
        return sorted({name or UNNAMED for name in found})

    @property
    def answers(self) -> list[str]:
        """The text of every record's last turn, [N]."""
        return [
            text
            for chunk in self._chunks("texts")
            for text in chunk.flatten().take(pc.subtract(_ends(chunk), 1)).to_pylist()
        ]

    def _chunks(self, column: str) -> Sequence[pa.Array]:
        return list(self._table.column(column).chunks)


def _ends(lists: pa.Array) -> pa.Array:
    """Where each of some lists ends among the items of all, int64 [N]."""
    return pc.cumulative_sum(pc.cast(pc.list_value_length(lists), pa.int64()))


def place(starts: Sequence[tuple[str, int]], number: int) -> str:
    """The file and the number in it of a data set's `number`-th record.

    Args:
        starts: the files, each with the number of its first record.
        number: counted over all files.
    """
    file, first = starts[bisect_right([first for _, first in starts], number) - 1]
    return f"{file}: record {number - first}"

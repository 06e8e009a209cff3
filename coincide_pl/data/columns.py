"""Records as Arrow columns: chunks of rows, the digest of all of them, and where texts begin."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coincide_pl.data.record import ROLE_NUMBERS, Record

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
"""A record as a row; `roles` and `texts` are those of its turns."""
ROWS_PER_CHUNK = 8192


def chunks(records: Iterable[Record]) -> Iterator[pa.RecordBatch]:
    """Records as chunks of `ROWS_PER_CHUNK` rows; the last may have fewer."""
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
    """Some records as one chunk; those without a number are counted on from `first`."""
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


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Turns Python's search for cycles off: reading makes millions of objects and no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def digest(chunks: Iterable[pa.RecordBatch]) -> str:
    """A digest of all columns but the numbers, 32 hexadecimal digits.

    Each column has its own, so that the digest does not depend on where chunks end.
    """
    digests: dict[str, hashlib.blake2b] = {}

    def add(name: str, values: Buffer) -> None:
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


def total_lengths(texts: pa.ListArray) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of all strings of each list, int64."""
    sizes = pc.binary_length(texts.flatten()).to_numpy()
    totals = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    counts = pc.list_value_length(texts).to_numpy()
    ends = np.cumsum(counts, dtype=np.int64)
    lengths: npt.NDArray[np.int64] = totals[ends] - totals[ends - counts]
    return lengths

"""Samples of tar shards copied into a tar of their own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

import pyarrow as pa

from coincide_pl.data.shards.places import read_bytes
from coincide_pl.data.shards.tar import Sample
from coincide_pl.errors import DataError
from coincide_pl.files import beside, reason


def copy_samples(samples: Iterable[tuple[str, Path, int]], target: Path) -> None:
    """Writes samples with all their members, one after the other.

    A sample whose key is taken goes into a folder of the name of its shard.

    Args:
        samples: of each its shard, a path or URL; the index of that; and its row there.
        target: the tar; it is whole or not there.

    Raises:
        DataError: a shard can't be read, or ends before.
    """
    taken: set[str] = set()
    with beside(target) as aside, tarfile.open(aside, "w") as tar:
        for shard, index, row in samples:
            sample = Sample(**_opened(index).slice(row, 1).to_pylist()[0])
            folder = ""
            if sample.key in taken:
                folder = f"{PurePosixPath(shard).stem}/"
            if f"{folder}{sample.key}" in taken:
                raise DataError(f"{shard}: {sample.key!r} is there twice; choose form members")
            taken.add(f"{folder}{sample.key}")
            if sample.text is not None:
                _add(tar, f"{folder}{sample.key}.json", sample.text)
            for name, offset, size in zip(sample.names, sample.offsets, sample.sizes, strict=True):
                try:
                    content = read_bytes(shard, offset, size)
                except Exception as error:  # clients of file systems raise anything
                    raise DataError(f"{shard}: can't be read ({reason(error)})") from error
                if len(content) != size:
                    raise DataError(f"{shard}: ends inside {name[:80]!r}")
                _add(tar, folder + name, content)


@cache
def _opened(index: Path) -> pa.Table:
    """An index, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(index))).read_all()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))

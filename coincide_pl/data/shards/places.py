"""Where shards lie: in a folder, or at a URL that fsspec opens."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from coincide_pl.errors import DataError
from coincide_pl.files import reason, write_text

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LISTING = "shards.json"
"""File of a folder of the cache that stands for a URL: the shards there, with their states."""


def is_url(path: str) -> bool:
    """Whether a path is a URL, such as `s3://bucket/folder`."""
    return "://" in path


def read_bytes(shard: str, offset: int, size: int) -> bytes:
    """Some bytes of a shard.

    Args:
        shard: path or URL.
        offset: of the first byte.
        size: in bytes.

    Raises:
        OSError: they can't be read, or the shard ends before.
    """
    if is_url(shard):
        system, path = file_system(shard)
        found: bytes = system.cat_file(path, start=offset, end=offset + size)
        return found
    file = os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.pread(file, size, offset)
        while len(found) < size and (
            more := os.pread(file, size - len(found), offset + len(found))
        ):
            found += more
    finally:
        os.close(file)
    return found


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path on it.

    Raises:
        DataError: what opens such URLs is not installed.
    """
    import fsspec
    from fsspec.registry import known_implementations

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        known = known_implementations.get(url.partition("://")[0], {})
        package = str(known.get("class", "fsspec")).partition(".")[0]
        if isinstance(error, ImportError) and package != "fsspec":
            raise DataError(f"{url}: pip install {package} opens such addresses") from error
        raise DataError(f"{url}: can't be opened ({' '.join(str(error).split())})") from error
    return system, path


def list_url(url: str, suffixes: tuple[str, ...]) -> dict[str, list[object]]:
    """The shards below a URL, by their paths relative to it, each with its size and state.

    Args:
        url: of a folder or of one shard.
        suffixes: how the names of shards end.

    Raises:
        DataError: nothing can be listed there.
    """
    system, top = file_system(url)
    try:
        names = [top] if top.endswith(suffixes) else system.find(top)
        found: dict[str, list[object]] = {}
        for name in sorted(name for name in names if name.endswith(suffixes)):
            about = system.info(name)
            keys = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created", "sha")
            state = next((str(about[key]) for key in keys if about.get(key)), "")
            base = os.path.dirname(top) if name == top else top
            found[name[len(base) :].lstrip("/")] = [about.get("size"), state]
    except Exception as error:  # file systems raise what their servers' clients do
        raise DataError(f"{url}: can't be listed ({reason(error)})") from error
    return found


@lru_cache(maxsize=256)
def base_of(folder: str) -> str:
    """What shards' paths in a folder are relative to: the folder, or the URL it stands for."""
    try:
        url: str = json.loads(Path(folder, LISTING).read_text())["url"]
    except FileNotFoundError:
        return folder
    return url


@lru_cache(maxsize=64)
def listed_states(folder: str) -> dict[str, list[object]]:
    """Sizes and states of the shards at the URL that a folder stands for, as they were listed."""
    states: dict[str, list[object]] = json.loads(Path(folder, LISTING).read_text())["shards"]
    return states


def note_listing(folder: Path, url: str, shards: dict[str, list[object]]) -> None:
    """Let a folder of the cache stand for a URL; its file stays as it is while nothing changes.

    Args:
        folder: of the cache.
        url: what the shards' paths are relative to.
        shards: what `list_url` found there.
    """
    text = json.dumps({"url": url, "shards": shards})
    file = folder / LISTING
    if not file.is_file() or file.read_text() != text:
        write_text(file, [text])
    base_of.cache_clear()
    listed_states.cache_clear()

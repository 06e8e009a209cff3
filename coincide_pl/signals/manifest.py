"""What a store of signals was made from, and how its files are laid out."""

from __future__ import annotations

import hashlib
import inspect
import io
import itertools
import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coincide_pl.errors import SignalsError
from coincide_pl.files import beside
from coincide_pl.signals.forward import ModelFacts
from coincide_pl.signals.signal import Signal, class_path

MANIFEST = "manifest.json"
RENAMED = {"perplexity": "nll", "aum": "margin"}
"""Signals that had other names in earlier versions."""


@dataclass(frozen=True)
class StoredSignal:
    """What a store's manifest says of one of its signals.

    Attributes:
        kind: the default name of its class, by which selectors look for it.
        class_path: import path of its class.
        arguments: of its constructor.
        code: digest of the file of a class that is not this package's own.
        shape: of a row.
        dtype: of the array.
    """

    kind: str
    class_path: str
    arguments: dict[str, Any]
    code: str | None
    shape: list[int]
    dtype: str

    @classmethod
    def of(cls, signal: Signal, facts: ModelFacts) -> StoredSignal:
        """What is noted of a signal from a model of some sizes."""
        if np.dtype(signal.dtype).kind not in "fiu":
            raise SignalsError(f"{class_path(type(signal))}: its dtype {signal.dtype} is no number")
        arguments = json.loads(json.dumps(signal.arguments, default=str))
        shape = list(signal.shape(facts))
        kind = type(signal)
        return cls(kind.name, class_path(kind), arguments, _code(kind), shape, signal.dtype)


def _code(kind: type[Signal]) -> str | None:
    """The digest of a class's file; another version of this package is not another signal."""
    if not kind.__module__.startswith("coincide_pl."):
        with suppress(OSError, TypeError):  # typed by hand, as in a notebook
            content = Path(inspect.getfile(kind)).read_bytes()
            return hashlib.blake2b(content, digest_size=16).hexdigest()
    return None


@dataclass(frozen=True)
class Manifest:
    """What a store's numbers depend on.

    Attributes:
        data: fingerprint of the records.
        num_rows: N.
        model: fingerprint of the checkpoint.
        images: state of the images, and before it, and a colon, what was looked at: `time` for
            sizes and times of change, or `content`.
        encoding: digests of what the encoder does, see `encoding_digests`.
        settings: options that change the numbers, by name.
        signals: by name.
        versions: of the libraries; kept, not compared.
    """

    data: str
    num_rows: int
    model: str
    images: str
    encoding: dict[str, str]
    settings: dict[str, Any]
    signals: dict[str, StoredSignal]
    versions: dict[str, str]

    def differences(self, other: Manifest) -> list[str]:
        """In what two stores that may not be mixed differ, in words: this one's, then the other's.

        Args:
            other: of the store that is asked for.
        """
        mine, theirs = (json.loads(json.dumps(asdict(m))) for m in (self, other))
        found = [f"another {name}" for name in ("data", "model") if mine[name] != theirs[name]]
        if mine["images"] != theirs["images"]:
            ways = [m["images"].partition(":")[0] for m in (mine, theirs)]
            found.append(
                "images that have changed"
                if ways[0] == ways[1]
                else f"images known by {ways[0]}, not by {ways[1]} (data.images_by)"
            )
        for name, digest in mine["encoding"].items():
            if theirs["encoding"].get(name) != digest:
                found.append(f"another {name}")
        if mine["num_rows"] != theirs["num_rows"]:
            found.append(f"{mine['num_rows']} rows, not {theirs['num_rows']}")
        found += _compared(mine["settings"], theirs["settings"], "")
        own, wanted = mine["signals"], theirs["signals"]
        if list(own) != list(wanted):
            found.append(f"the signals {', '.join(own)}, not {', '.join(wanted)}")
        for name in sorted(own.keys() & wanted.keys()):
            if own[name].pop("code") != wanted[name].pop("code"):
                found.append(f"{name} by another text of {own[name]['class_path']}")
            found += _compared(
                {**own[name].pop("arguments"), **own[name]},
                {**wanted[name].pop("arguments"), **wanted[name]},
                f"{name} with ",
            )
        return found


@dataclass(frozen=True)
class Origin:
    """What an array of a signal comes from.

    Attributes:
        manifest: of its store.
        signal: what that says of the signal.
    """

    manifest: Manifest
    signal: StoredSignal


def _compared(mine: dict[str, Any], theirs: dict[str, Any], of: str) -> list[str]:
    return [
        f"{of}{name} {json.dumps(mine.get(name))}, not {json.dumps(theirs.get(name))}"
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    ]


@dataclass(frozen=True)
class Contents:
    """What the arrays of a sealed store hold.

    Attributes:
        digests: of each array, as if it were one `.npy` file, by name.
        files: digests of the files of each array that lies in several.
    """

    digests: dict[str, str]
    files: dict[str, list[str]]

    def only(self, name: str) -> Contents:
        """The same of one array."""
        files = {name: self.files[name]} if name in self.files else {}
        return Contents({name: self.digests[name]}, files)

    def num_files(self, name: str) -> int:
        """In how many files an array lies."""
        return len(self.files[name]) if name in self.files else 1

    def paths(self, directory: Path) -> Iterator[tuple[Path, str]]:
        """All files, each with its digest."""
        for name, digest in self.digests.items():
            digests = self.files.get(name, [digest])
            yield from zip(array_files(directory, name, len(digests)), digests, strict=True)


def array_files(directory: Path, signal: str, count: int) -> list[Path]:
    """The files of a signal's array, in the order of their rows."""
    if count == 1:
        return [directory / f"{signal}.npy"]
    return [directory / f"{signal}-{i:05d}-of-{count:05d}.npy" for i in range(1, count + 1)]


def spans(num_rows: int, count: int) -> list[slice]:
    """The rows of each of some files."""
    ends = [num_rows * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def layout(
    manifest: Manifest, signal: str, num_rows: int | None = None
) -> tuple[bytes, int, np.dtype[Any]]:
    """What comes before the first row of a file, bytes of a row, dtype.

    Args:
        manifest: of the store.
        signal: whose array it is.
        num_rows: of the file (default: all).
    """
    shape = manifest.signals[signal].shape
    dtype = np.dtype(manifest.signals[signal].dtype)
    header: dict[str, Any] = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    header["shape"] = (manifest.num_rows if num_rows is None else num_rows, *shape)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue(), math.prod(shape) * dtype.itemsize, dtype


def check_arrays(directory: Path, manifest: Manifest, contents: Contents) -> None:
    """Refuses a store one of whose files is missing, cut or grown, or begins differently."""
    for name in manifest.signals:
        count = contents.num_files(name)
        parts = spans(manifest.num_rows, count)
        for path, part in zip(array_files(directory, name, count), parts, strict=True):
            header, width, _ = layout(manifest, name, part.stop - part.start)
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    whole = file.read(len(header)) == header
            except OSError:
                whole = False
            if not whole or size != len(header) + (part.stop - part.start) * width:
                raise SignalsError(
                    f"{path}: missing or truncated; delete {directory} and predict again"
                )


def read_manifest(directory: Path) -> tuple[Manifest, Contents | None]:
    """A store's manifest, and what its arrays hold; None where it is not sealed.

    Raises:
        SignalsError: the manifest is damaged, or of an earlier version.
    """
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_text())
        fields, digests = dict(content["manifest"]), content["digests"]
        files = content.get("files", {})
        if content.get("seal") not in (None, _seal(content)):
            raise ValueError("seal")
        if "images" not in fields:
            raise SignalsError(_earlier(directory, fields))
        signals = {name: StoredSignal(**signal) for name, signal in fields["signals"].items()}
        manifest = Manifest(**{**fields, "signals": signals})
        for name in manifest.signals:
            if not name.isidentifier():
                raise ValueError(name)
            layout(manifest, name)
        if digests is not None and set(digests) != set(manifest.signals):
            raise ValueError("digests")
        for name, parts in files.items():
            if name not in signals or not 1 < len(parts) <= manifest.num_rows:
                raise ValueError("files")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SignalsError(f"{path}: a damaged manifest; delete {directory}") from error
    if digests is None and any(directory.glob("done.*")):
        raise SignalsError(
            f"{directory}: begun by an earlier version, and not finished; finish it with that "
            "version, or delete it and run `coincide predict` again"
        )
    return manifest, None if digests is None else Contents(digests, files)


def _earlier(directory: Path, fields: dict[str, Any]) -> str:
    """What to say of a store that an earlier version wrote."""
    names = [f"{old} is now {RENAMED[old]}" for old in fields["signals"] if old in RENAMED]
    renamed = f" ({', '.join(names)})" if names else ""
    return (
        f"{directory}: signals of an earlier version, without all that they depend on{renamed}: "
        "delete it and run `coincide predict` again"
    )


def write_manifest(directory: Path, manifest: Manifest, contents: Contents | None) -> None:
    """Writes a store's manifest, with what its arrays hold once it is sealed."""
    content: dict[str, Any] = {"manifest": asdict(manifest), "digests": None}
    if contents is not None:
        content["digests"] = contents.digests
        if contents.files:
            content["files"] = contents.files
    with beside(directory / MANIFEST) as aside:
        aside.write_text(json.dumps({**content, "seal": _seal(content)}, indent=1))


def _seal(content: dict[str, Any]) -> str:
    """A digest of all that the manifest says."""
    said = [content[key] for key in ("manifest", "digests", "files") if key in content]
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()

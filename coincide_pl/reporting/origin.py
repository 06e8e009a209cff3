"""Data that a selection was made from, found by the config beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from coincide_pl.data import readers
from coincide_pl.data.readers import Reader
from coincide_pl.data.records import Records
from coincide_pl.errors import CoincideError, ConfigError, DataError
from coincide_pl.files import reading
from coincide_pl.reporting.config import Config, option, parse_config
from coincide_pl.reporting.stages import started_in
from coincide_pl.selection import Selection

MADE_BY = ("fit", "select", "data")
"""Names of configs beside a selection; the last one is what `InstructionData.select` leaves."""


@dataclass(frozen=True)
class Origin:
    """A selection and the data that it was made from.

    Attributes:
        place: the selection file.
        selection: the selection that is in it.
        config: config of the run.
        folder: folder that the run was started in, which relative paths in its config are from.
        reader: reader of the training data; it works in that folder.
        records: the training records.
    """

    place: Path
    selection: Selection
    config: Config
    folder: Path
    reader: Reader
    records: Records

    @classmethod
    def of(cls, selection: str | Selection, run_config: str | None = None) -> Origin:
        """Find what a selection was made from; no module is imported that only the run names.

        Args:
            selection: the selection file, the run's directory that it lies in, or a selection that
                was read from its file.
            run_config: config of the run (default: `fit.yaml`, `select.yaml` or `data.yaml` beside
                it); one that is named here may name a reader of one's own.

        Raises:
            CoincideError: selection, config or data can't be read, or do not belong together.
        """
        place = selection_file(selection).absolute()
        chosen = Selection.load(place)
        with reading(place, "select again"):
            check_description(chosen)
        path = run_config_of(place, run_config)
        config = read_origin(path)
        folder = started_in(path.parent, path.stem)
        with chdir(folder):
            reader, records = data_of(config, path, imports=run_config is not None)
        if (chosen.made_from.get("data"), chosen.pool_size) != (records.fingerprint, len(records)):
            raise CoincideError(f"{place}: was made from other data than the config's")
        return cls(place, chosen, config, folder, reader, records)


def check_description(chosen: Selection) -> None:
    """Check what a selection says of how it was made, as far as a page shows it.

    Raises:
        Exception: one of `files.UNUSABLE`, where it is something else.
    """
    str.rpartition(chosen.selector["class_path"], ".")
    for group in (chosen.selector["init_args"], chosen.made_from, chosen.figures):
        dict.keys(group)
    num = {len(column) for column in chosen.clusters.values()}
    columns = [np.asarray(column, np.float64) for column in chosen.clusters.values()]
    labels = np.zeros(1, np.int32) if chosen.labels is None else chosen.labels
    most = chosen.pool_size + 1  # beside one for each sample, one for those without an image
    if not (
        len(num) <= 1
        and all(column.ndim == 1 and np.isfinite(column).all() for column in columns)
        and labels.ndim == 1
        and np.issubdtype(labels.dtype, np.integer)
        and 0 <= labels.min() <= labels.max() < max(num or {chosen.pool_size})
        and max(num, default=0) <= most
    ):
        raise ValueError("clusters and their figures do not belong together")


def selection_file(name: str | Selection) -> Path:
    """The selection file of a run's directory, the file itself, or that of a loaded selection.

    Raises:
        ConfigError: the selection was not read from a file.
    """
    if isinstance(name, Selection):
        if name.path is None:
            raise ConfigError("selection: save it first, and give the file's name")
        return name.path
    return Path(name, "selection.safetensors") if Path(name).is_dir() else Path(name)


def run_config_of(place: Path, given: str | None) -> Path:
    """Find the config of the run that a selection lies in.

    Args:
        place: the selection file.
        given: another config (default: `fit.yaml`, `select.yaml` or `data.yaml` beside the
            selection).

    Raises:
        ConfigError: there is none.
    """
    names = [Path(given)] if given else [place.with_name(f"{x}.yaml") for x in MADE_BY]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise ConfigError(f"run_config: {' or '.join(map(str, names))} is not there; give another")
    return path.absolute()


def read_origin(path: Path) -> Config:
    """Read a config that must name training data.

    Raises:
        ConfigError: it is no config, or it names none.
    """
    try:
        config = parse_config(path.read_text())
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: can't be read as a config; name another run_config") from error
    if option(config, "data.train.class_path") is None:
        raise ConfigError(f"{path}: names no training data (data.init_args.train)")
    return config


def data_of(config: Config, path: Path, imports: bool) -> tuple[Reader, Records]:
    """The reader of the training data that a config names, and the records.

    Args:
        config: the config.
        path: file that it was read from, for messages.
        imports: whether a reader of one's own may be imported.

    Raises:
        CoincideError: the reader or the data can't be used.
    """
    name = str(option(config, "data.train.class_path"))
    known = reader_class(name, path, imports)
    arguments = option(config, "data.train.init_args") or {}
    try:
        reader = known(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: data.train: {name} can't be built ({reason})") from error
    except DataError as error:
        raise DataError(f"{error} (named in {path}, from {Path.cwd()})") from error
    cache = str(option(config, "data.cache_dir") or "~/.cache/coincide_pl")
    return reader, reader.records(cache)


def reader_class(name: str, path: Path, imports: bool) -> type[Reader]:
    """The reader that a config names: one of this package, or one that is loaded already.

    Args:
        name: its class path, or the class name alone.
        path: file of the config, for messages.
        imports: whether the module may be imported that the class path names.

    Raises:
        ConfigError: it is not a reader, or its module would have to be imported.
    """
    module, _, last = name.rpartition(".")
    if module.split(".")[0] in ("", "coincide_pl") and last in readers.__all__:
        found = getattr(readers, last)
    else:
        if imports:
            try:
                import_module(module)
            except (ImportError, ValueError) as error:
                raise ConfigError(f"{path}: data.train: {name} can't be imported") from error
        loaded = {f"{one.__module__}.{one.__qualname__}": one for one in _below(Reader)}
        found = loaded.get(name)
    if not (isinstance(found, type) and issubclass(found, Reader)):
        what = (
            "is no subclass of coincide_pl.data.readers.Reader"
            if imports
            else f"is not a reader of this package; to import it, name the config yourself: "
            f"--run_config={path}"
        )
        raise ConfigError(f"{path}: data.train: {name} {what}")
    return found


def _below(base: type[object]) -> Iterator[type[object]]:
    """Yield all loaded subclasses of a class."""
    for one in base.__subclasses__():
        yield one
        yield from _below(one)

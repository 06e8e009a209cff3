"""Data that a selection was made from, found by the config beside it."""

from __future__ import annotations

from argparse import ArgumentError
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser

from coincide_pl.data.readers.reader import Reader
from coincide_pl.data.records import Records
from coincide_pl.errors import CoincideError, ConfigError
from coincide_pl.reporting.config import Config, option, parse_config
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
        reader: reader of the training data.
        records: the training records.
    """

    place: Path
    selection: Selection
    config: Config
    reader: Reader
    records: Records

    @classmethod
    def of(cls, selection: str | Selection, run_config: str | None = None) -> Origin:
        """Find what a selection was made from.

        Args:
            selection: the selection file, the run's directory that it lies in, or a selection that
                was read from its file.
            run_config: config of the run (default: `fit.yaml`, `select.yaml` or `data.yaml` beside
                it).

        Raises:
            CoincideError: selection, config or data can't be read, or do not belong together.
        """
        place = selection_file(selection)
        chosen = Selection.load(place)
        config = run_config_of(place, run_config)
        reader, records = data_of(config)
        if (chosen.made_from.get("data"), chosen.pool_size) != (records.fingerprint, len(records)):
            raise CoincideError(f"{place}: was made from other data than the config's")
        return cls(place, chosen, config, reader, records)


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


def run_config_of(place: Path, given: str | None) -> Config:
    """Read the config of the run that a selection lies in, or another one.

    Args:
        place: the selection file.
        given: the config to read (default: `fit.yaml`, `select.yaml` or `data.yaml` beside
            the selection).

    Raises:
        ConfigError: there is none, or it names no training data.
    """
    names = [Path(given)] if given else [place.with_name(f"{x}.yaml") for x in MADE_BY]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise ConfigError(f"run_config: {' or '.join(map(str, names))} is not there; give another")
    try:
        config = parse_config(path.read_text())
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: can't be read as a config; name another run_config") from error
    if option(config, "data.train.class_path") is None:
        raise ConfigError(f"{path}: names no training data (data.init_args.train)")
    return config


def data_of(config: Config) -> tuple[Reader, Records]:
    """The reader of the training data that a config names, and the records.

    Raises:
        CoincideError: the reader or the data can't be used.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Reader, "train", required=True)
    try:
        parsed = parser.parse_object({"train": option(config, "data.train")})
    except ArgumentError as error:
        raise ConfigError(f"data.train: {' '.join(str(error).split())}") from error
    reader: Reader = parser.instantiate_classes(parsed).train
    return reader, reader.records(option(config, "data.cache_dir") or "~/.cache/coincide_pl")

"""Where a selection came from: the data that it was made from, by the config beside it."""

from __future__ import annotations

from argparse import ArgumentError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from coincide_pl.data.readers.reader import Reader
from coincide_pl.data.records import Records
from coincide_pl.errors import CoincideError, ConfigError
from coincide_pl.selection import Selection


@dataclass(frozen=True)
class Origin:
    """A selection and its data.

    Attributes:
        place: the selection file.
        selection: what is in it.
        settings: the config of the run.
        reader: of the training data.
        records: these.
    """

    place: Path
    selection: Selection
    settings: dict[str, Any]
    reader: Reader
    records: Records

    @classmethod
    def of(cls, selection: str, run_config: str | None = None) -> Origin:
        """Finds what a selection was made from.

        Args:
            selection: the selection file, or the run's directory that it lies in.
            run_config: config of the run (default: `fit.yaml` or `select.yaml` beside it).

        Raises:
            CoincideError: selection, config or data can't be read, or do not belong together.
        """
        place = Path(selection)
        if place.is_dir():
            place = place / "selection.safetensors"
        chosen = Selection.load(place)
        settings = read_config(place, run_config)
        reader, records = data_in(settings)
        if chosen.made_from.get("data") != records.fingerprint:
            raise CoincideError(f"{place}: was made from other data than the config's")
        return cls(place, chosen, settings, reader, records)


def read_config(place: Path, given: str | None) -> dict[str, Any]:
    """The config of the run that a selection lies in, or another one.

    Raises:
        ConfigError: there is none, or it names no training data.
    """
    names = [Path(given)] if given else [place.with_name(f"{x}.yaml") for x in ("fit", "select")]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise ConfigError(f"run_config: {' or '.join(map(str, names))} is not there; give another")
    try:
        settings = yaml.safe_load(path.read_text())
        settings["data"]["init_args"]["train"]["class_path"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: names no training data (data.init_args.train)") from error
    return dict(settings)


def records_in(settings: dict[str, Any]) -> Records:
    """The training records that a config names."""
    return data_in(settings)[1]


def data_in(settings: dict[str, Any]) -> tuple[Reader, Records]:
    """The reader of the training data that a config names, and the records."""
    options = settings["data"]["init_args"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Reader, "train", required=True)
    try:
        parsed = parser.parse_object({"train": options["train"]})
    except ArgumentError as error:
        raise ConfigError(f"data.train: {' '.join(str(error).split())}") from error
    reader: Reader = parser.instantiate_classes(parsed).train
    return reader, reader.records(options.get("cache_dir") or "~/.cache/coincide_pl")

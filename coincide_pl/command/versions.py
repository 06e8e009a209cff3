"""The version folder of a run's CSV or TensorBoard logger, which its tests share with its fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NUMBERED = ("CSVLogger", "TensorBoardLogger")
"""Loggers that number the folders that they write, as `version_0`, in their `save_dir`."""


def join_fit(logger: Any, root: Path, verb: str) -> None:
    """Lets a stage behind `fit` log into the newest version there, which is the fit's.

    Only in the run's own folder: another one may hold versions of other runs. CSV loggers would
    delete the fit's figures, so theirs go into a folder inside, called as the stage.

    Args:
        logger: class and arguments of a logger, as the config names them; changed in place.
        root: directory of the run.
        verb: name of the stage.
    """
    kind = str(getattr(logger, "class_path", "")).rpartition(".")[2]
    if kind not in NUMBERED or logger.init_args.version is not None:
        return
    folder = Path(logger.init_args.save_dir) / (logger.init_args.name or "")
    if not folder.resolve().is_relative_to(root.resolve()):
        return
    numbers = [path.name.removeprefix("version_") for path in folder.glob("version_*")]
    newest = max((int(number) for number in numbers if number.isdigit()), default=None)
    if newest is not None:
        logger.init_args.version = f"version_{newest}{f'/{verb}' if kind == NUMBERED[0] else ''}"

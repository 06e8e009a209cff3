"""Where a stage reads and writes: the directory of its run, and its training checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from coincide_pl.command.urls import URL

log = logging.getLogger(__name__)

ROOT = "runs"
"""The directory of runs that name none."""


def fill_root(config: Namespace, verb: str) -> None:
    """Sets the run's directory where the user names none: for `predict`, where the signals go.

    So its costs are found beside them, and two runs into two directories can work at once.
    """
    if config.trainer.default_root_dir is None:
        options = config.data.get("init_args") if config.data is not None else None
        signals = options.get("signals") if verb == "predict" and options is not None else None
        here = isinstance(signals, str) and not URL.match(signals)
        config.trainer.default_root_dir = signals if here else ROOT


def checkpoint_for(verb: str, given: str | None, keepers: list[Checkpoint]) -> str | None:
    """The training checkpoint that a stage reads.

    Args:
        verb: the stage.
        given: `ckpt_path`; a shared config may have fit's.
        keepers: the trainer's callbacks that keep checkpoints.

    Returns:
        A path; `last`, where there is one or Lightning has to look for it; or None.
    """
    if given is None:
        return None
    if verb != "fit" and given == "last":
        log.info("ckpt_path: is fit's alone; %s takes the weights of model.pretrained", verb)
        return None
    models = [one for one in keepers if isinstance(one, ModelCheckpoint)]
    folders = [one.dirpath for one in models if one.dirpath or one.save_last]
    if given != "last" or any(folder is None or URL.match(str(folder)) for folder in folders):
        return given
    found = [path for folder in folders for path in Path(str(folder)).glob("*.ckpt")]
    if any(path.name.startswith(ModelCheckpoint.CHECKPOINT_NAME_LAST) for path in found):
        return given
    if found:
        newest = max(found, key=lambda path: path.stat().st_mtime)
        log.warning(
            "ckpt_path: %s holds no last.ckpt, so the fit begins anew; --ckpt_path='%s' goes on "
            "from the newest that is there",
            *(newest.parent, newest),
        )
    return None

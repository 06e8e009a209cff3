"""Leave a finetuned model as a Hugging Face checkpoint: at the end of a fit, or by `export`."""

from __future__ import annotations

import logging
import shutil
from argparse import ArgumentError
from pathlib import Path
from typing import Literal

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from coincide_pl.errors import ConfigError, ModelError
from coincide_pl.files import run_directory
from coincide_pl.models.loading import first_line, resolved, save_checkpoint
from coincide_pl.models.sharding import whole_state
from coincide_pl.models.target import TargetModule
from coincide_pl.processes import on_first_process

log = logging.getLogger(__name__)

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
OF_THE_MODEL = ("config.json", "generation_config.json")


class _ProcessorFiles:
    """The processor of a checkpoint, written as the very files in which it came."""

    def __init__(self, pretrained: str) -> None:
        self.source = resolved(pretrained)

    def save_pretrained(self, directory: Path) -> None:
        """Copies what is neither weights nor the model's own config, nor code."""
        for path in sorted(self.source.iterdir()):
            text = path.suffix in (".json", ".jinja", ".model", ".txt", ".tiktoken")
            own = path.name in OF_THE_MODEL or path.name.endswith(".index.json")
            if text and not own and not (directory / path.name).exists():
                shutil.copyfile(path, directory / path.name)


def export_model(
    module: TargetModule, directory: str | Path, state: dict[str, Tensor] | None = None
) -> None:
    """Write a module's model, adapters folded in, and the processor that it was trained with.

    Args:
        module: whose model it is; training can't go on after this.
        directory: where; what is there is replaced.
        state: what was trained, where the module holds a piece of it.
    """
    model = module.merge(state)
    save_checkpoint(directory, model, _ProcessorFiles(module.pretrained))


def export(
    run: str, output: str, checkpoint: str | None = None, run_config: str | None = None
) -> None:
    """Write what a fit has trained so far as a Hugging Face checkpoint, adapters folded in.

    A fit that ends leaves one in `model/`; this is for one that was stopped, or for another of its
    training checkpoints.

    Args:
        run: the fit's `trainer.default_root_dir`.
        output: the directory to write; what is there is replaced.
        checkpoint: the training checkpoint (default: `checkpoints/last.ckpt` in the run).
        run_config: config of the fit, for its module (default: `fit.yaml` in the run).

    Raises:
        ModelError: the run has no config of a fit, or no readable checkpoint.
    """
    folder = Path(run)
    config = Path(run_config) if run_config else folder / "fit.yaml"
    path = Path(checkpoint) if checkpoint else folder / "checkpoints" / "last.ckpt"
    if not config.is_file():
        raise ModelError(f"{config}: no such file; is {run} the directory of a fit?")
    if not path.exists():
        raise ModelError(f"{path}: no such training checkpoint")
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(lightning.LightningModule, "model", subclass_mode=True)
    try:
        settings = yaml.safe_load(config.read_text())["model"]
        parsed = parser.parse_object({"model": settings})
    except (ArgumentError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{config}: has no model that can be built ({reason})") from error
    module = parser.instantiate_classes(parsed).model
    module.configure_model()
    state = _trained(path)
    try:
        module.check_state(state)
        module.load_state_dict(state, strict=False)
    except (ModelError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: is not a checkpoint of this fit ({reason})") from error
    export_model(module, output)
    log.info("%s: written", output)


def _trained(path: Path) -> dict[str, Tensor]:
    """The state of the module in a training checkpoint; nothing in the file is run."""
    if path.is_dir():  # its index is a pickle, which could hold code
        raise ModelError(
            f"{path}: in a piece per process; put it together first with "
            f"`python -m lightning.pytorch.utilities.consolidate_checkpoint {path}`"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state: dict[str, Tensor] = checkpoint["state_dict"]
    except Exception as error:  # torch raises many kinds
        raise ModelError(f"{path}: not a training checkpoint ({first_line(error)})") from error
    return state


class ExportModel(lightning.Callback):
    """At the end of a fit, writes the model and its processor for `from_pretrained`."""

    def __init__(
        self, directory: str | None = None, weights: Literal["last", "best"] = "last"
    ) -> None:
        """Sets where the model will be.

        Args:
            directory: folder to write (default: `model` in the trainer's `default_root_dir`).
            weights: which are written: those after the last step, or the best by what a
                `ModelCheckpoint` among the trainer's callbacks monitors.
        """
        self.directory, self.weights = directory, weights
        self.goes_on = False

    def on_load_checkpoint(self, *args: object) -> None:
        """Notes that the fit goes on from a checkpoint."""
        self.goes_on = True

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuses to begin anew where a finished fit's model lies, and warns of its checkpoints.

        Raises:
            ConfigError: a model is there, or the best weights are wanted and nothing is monitored.
        """
        if run_directory(trainer) is None:
            return
        if self.weights == "best" and monitor(trainer) is None:
            raise ConfigError("ExportModel.weights: best needs a ModelCheckpoint with a monitor")
        if not self.goes_on:
            on_first_process(lambda: self._check_free(trainer))

    def _check_free(self, trainer: lightning.Trainer) -> None:
        folders = {str(getattr(one, "dirpath", None) or "") for one in trainer.checkpoint_callbacks}
        left = [path for folder in folders - {""} for path in Path(folder).glob("*.ckpt")]
        if left:
            newest = max(left, key=lambda path: path.stat().st_mtime)
            log.warning(
                "%s: the fit begins anew, though training checkpoints of an earlier one are there; "
                "--ckpt_path=%s goes on",
                *(trainer.default_root_dir, newest),
            )
        if (self._directory(trainer) / "config.json").is_file():
            raise ConfigError(
                f"{self._directory(trainer)}: the model of a finished fit is there; name another "
                "trainer.default_root_dir, or delete it to train anew"
            )

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the checkpoint directory, from one process."""
        if run_directory(trainer) is None:
            return
        if not isinstance(pl_module, TargetModule):
            log.warning("%s: is no TargetModule; no model is exported", type(pl_module).__name__)
            return
        state = whole_state(trainer.strategy, pl_module)
        if not trainer.is_global_zero:
            return
        directory, best = self._directory(trainer), monitor(trainer)
        if best is not None and best.best_model_path:
            path = Path(best.best_model_path)
            if self.weights == "best":
                state = _trained(path)
                pl_module.check_state(state)
                log.info("%s: the best weights by %s, of %s", directory, best.monitor, path)
            else:
                log.info(
                    "%s: the weights after the last step; the best by %s are in %s, which "
                    "`coincide export --checkpoint` writes as a model",
                    *(directory, best.monitor, path),
                )
        export_model(pl_module, directory, state)

    def _directory(self, trainer: lightning.Trainer) -> Path:
        return Path(self.directory or Path(trainer.default_root_dir) / "model")


def monitor(trainer: lightning.Trainer) -> ModelCheckpoint | None:
    """The callback that keeps the best checkpoint by something, where there is one."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback
    return None

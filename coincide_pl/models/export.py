"""Leave a finetuned model as a Hugging Face checkpoint: at the end of a fit, or by `export`."""

from __future__ import annotations

import logging
import shlex
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
from coincide_pl.models import adapters
from coincide_pl.models.loading import (
    Saves,
    check_output,
    first_line,
    resolved,
    save_checkpoint,
)
from coincide_pl.models.sharding import whole_state
from coincide_pl.models.target import TargetModule
from coincide_pl.processes import on_first_process

log = logging.getLogger(__name__)

OF_THE_MODEL = ("config.json", "generation_config.json", adapters.CONFIG)
Form = Literal["model", "adapters", "both"]
"""What is written: the whole model, adapters folded in; PEFT's adapters alone; or the model, with
the adapters in its subfolder `adapters`."""


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


class _Subfolder:
    """What is written into a folder inside a checkpoint."""

    def __init__(self, *parts: Saves) -> None:
        self.parts = parts

    def save_pretrained(self, directory: Path) -> None:
        """Writes each part."""
        folder = directory / "adapters"
        folder.mkdir()
        for part in self.parts:
            part.save_pretrained(folder)


def export_model(
    module: TargetModule,
    directory: str | Path,
    state: dict[str, Tensor] | None = None,
    form: Form = "model",
) -> None:
    """Write a module's model or its adapters, and the processor that it was trained with.

    Args:
        module: whose model it is; training can't go on after this.
        directory: where; a checkpoint that is there is replaced.
        state: what was trained, where the module holds a piece of it.
        form: `model`, adapters folded in; `adapters` alone, in PEFT's format; or `both`, with the
            adapters in the model's subfolder `adapters`.

    Raises:
        ConfigError: adapters are wanted of a module that has none.
    """
    check_form(module, form)
    processor = _ProcessorFiles(module.pretrained)
    if form == "model":
        save_checkpoint(directory, module.merge(state), processor)
        return
    assert module.model is not None
    inner = None if state is None else {k.removeprefix("model."): v for k, v in state.items()}
    learned = adapters.Adapters(module.model, module.pretrained, inner)
    if form == "adapters":
        save_checkpoint(directory, learned, processor)
    else:
        save_checkpoint(directory, module.merge(state), processor, _Subfolder(learned, processor))


def check_form(module: TargetModule, form: Form) -> None:
    """Refuse to write adapters of a module that trains none.

    Raises:
        ConfigError: naming the options.
    """
    if form != "model" and module.lora is None:
        raise ConfigError(f"form: {form} needs adapters, and model.lora trains none")


def export(
    run: str,
    output: str,
    form: Form = "model",
    checkpoint: str | None = None,
    run_config: str | None = None,
) -> None:
    """Write what a fit has trained so far as a Hugging Face checkpoint, or its adapters in PEFT's.

    A fit that ends leaves a checkpoint in `model/`; this is for one that was stopped, for another
    of its training checkpoints, and for folding adapters in PEFT's format into their base model.

    Args:
        run: the fit's `trainer.default_root_dir`, or a folder of adapters in PEFT's format.
        output: the directory to write; a checkpoint that is there is replaced.
        form: `model`, adapters folded in; `adapters` alone, in PEFT's format; or `both`, with the
            adapters in the model's subfolder `adapters`.
        checkpoint: the training checkpoint (default: `checkpoints/last.ckpt` in the run).
        run_config: config of the fit, for its module (default: `fit.yaml` in the run).

    Raises:
        ModelError: the run has no config of a fit, or no readable checkpoint.
        FileError: something else than a checkpoint is at `output`, or what is read.
    """
    folder = Path(run)
    check_output(output, run)
    if (folder / adapters.CONFIG).is_file():
        if form != "model":
            raise ConfigError(f"form: {form}: {run} has the adapters already")
        model, base = adapters.folded(run)
        check_output(output, base)
        save_checkpoint(output, model, _ProcessorFiles(base))
    else:
        module = _fitted(folder, checkpoint, run_config)
        check_output(output, module.pretrained)
        export_model(module, output, form=form)
    log.info("%s: written", output)


def _fitted(folder: Path, checkpoint: str | None, run_config: str | None) -> TargetModule:
    """The module of a fit, with the weights of one of its training checkpoints."""
    config = Path(run_config) if run_config else folder / "fit.yaml"
    path = Path(checkpoint) if checkpoint else folder / "checkpoints" / "last.ckpt"
    if not config.is_file():
        raise ModelError(f"{config}: no such file; is {folder} the directory of a fit?")
    if not path.exists():
        model = folder / "model"
        finished = any((model / name).is_file() for name in ("config.json", adapters.CONFIG))
        raise ModelError(
            f"{path}: no such training checkpoint"
            + f"; the fit has ended, and what it left is in {model}" * (finished and not checkpoint)
        )
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(lightning.LightningModule, "model", subclass_mode=True)
    try:
        settings = yaml.safe_load(config.read_text())["model"]
        parsed = parser.parse_object({"model": settings})
    except (ArgumentError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{config}: has no model that can be built ({reason})") from error
    module: TargetModule = parser.instantiate_classes(parsed).model
    module.configure_model()
    state = _trained(path)
    try:
        module.check_state(state)
        module.load_state_dict(state, strict=False)
    except (ModelError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: is not a checkpoint of this fit ({reason})") from error
    return module


def _trained(path: Path) -> dict[str, Tensor]:
    """The state of the module in a training checkpoint; nothing in the file is run."""
    if path.is_dir():  # its index is a pickle, which could hold code
        raise ModelError(f"{path}: in a piece per process; put it together first{_converter(path)}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        # FSDP 1 calls it otherwise, where its checkpoints are in pieces.
        state: dict[str, Tensor] = checkpoint["model" if "model" in checkpoint else "state_dict"]
    except Exception as error:  # torch raises many kinds
        raise ModelError(f"{path}: not a training checkpoint ({first_line(error)})") from error
    return state


def _converter(path: Path) -> str:
    """The command that makes one file of a checkpoint in pieces, by who has written it."""
    whole = path.with_name(f"{path.stem}-whole.ckpt")
    if (path / "zero_to_fp32.py").is_file() or (path / "latest").is_file():
        function = (
            "lightning.pytorch.utilities.deepspeed:convert_zero_checkpoint_to_fp32_state_dict"
        )
        module, _, name = function.partition(":")
        code = f"from {module} import {name} as convert; convert({str(path)!r}, {str(whole)!r})"
        command = f"python -c {shlex.quote(code)}"
    elif (path / ".metadata").is_file():
        tool = ("-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch")
        command = shlex.join(["python", *tool, str(path), str(whole)])
    else:
        return ", by the tool of who has written it; it is neither FSDP's nor DeepSpeed's"
    option = shlex.quote(f"--checkpoint={whole}")
    return f" with `{command}`, and give `{option}`"


class ExportModel(lightning.Callback):
    """At the end of a fit, writes the model and its processor for `from_pretrained`."""

    def __init__(
        self,
        directory: str | None = None,
        weights: Literal["last", "best"] = "last",
        form: Form = "model",
    ) -> None:
        """Sets where the model will be, and in which form.

        Args:
            directory: folder to write (default: `model` in the trainer's `default_root_dir`).
            weights: which are written: those after the last step, or the best by what a
                `ModelCheckpoint` among the trainer's callbacks monitors.
            form: `model`, adapters folded in; `adapters` alone, in PEFT's format; or `both`, with
                the adapters in the model's subfolder `adapters`.
        """
        self.directory, self.weights, self.form = directory, weights, form
        self.goes_on = False

    def on_load_checkpoint(self, *args: object) -> None:
        """Notes that the fit goes on from a checkpoint."""
        self.goes_on = True

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuses to begin anew where a finished fit's model lies, and warns of its checkpoints.

        Raises:
            ConfigError: a model is there, the best weights are wanted and nothing is monitored, or
                adapters are wanted and none are trained.
        """
        if run_directory(trainer) is None:
            return
        if isinstance(pl_module, TargetModule):
            check_form(pl_module, self.form)
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
        left_by_fit = (self._directory(trainer) / name for name in ("config.json", adapters.CONFIG))
        if any(path.is_file() for path in left_by_fit):
            raise ConfigError(
                f"{self._directory(trainer)}: the model of a finished fit is there; name another "
                "trainer.default_root_dir, or delete it to train anew"
            )
        check_output(self._directory(trainer))

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
        export_model(pl_module, directory, state, self.form)

    def _directory(self, trainer: lightning.Trainer) -> Path:
        return Path(self.directory or Path(trainer.default_root_dir) / "model")


def monitor(trainer: lightning.Trainer) -> ModelCheckpoint | None:
    """The callback that keeps the best checkpoint by something, where there is one."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback
    return None

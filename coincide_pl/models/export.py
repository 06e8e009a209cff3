"""Leave a finetuned model as a Hugging Face checkpoint: at the end of a fit, or by `export`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning

from coincide_pl.models.loading import resolved, save_checkpoint

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
OF_THE_MODEL = ("config.json", "generation_config.json")


class _ProcessorFiles:
    """A checkpoint's processor, as the files in which it came."""

    def __init__(self, pretrained: str) -> None:
        self.source = resolved(pretrained)

    def save_pretrained(self, directory: Path) -> None:
        """Copies what is neither weights nor the model's own config, nor code."""
        for path in sorted(self.source.iterdir()):
            text = path.suffix in (".json", ".jinja", ".model", ".txt", ".tiktoken")
            own = path.name in OF_THE_MODEL or path.name.endswith(".index.json")
            if text and not own and not (directory / path.name).exists():
                shutil.copyfile(path, directory / path.name)


def export_model(module: Any, directory: str | Path) -> None:
    """Write a module's model, adapters folded in, and the processor that it was trained with.

    Args:
        module: a `TargetModule`; training can't go on after this.
        directory: where; what is there is replaced.
    """
    model = module.merge()
    save_checkpoint(directory, model, _ProcessorFiles(module.pretrained))


class ExportModel(lightning.Callback):
    """At the end of a fit, writes the model and its processor for `from_pretrained`."""

    def __init__(self, directory: str | None = None) -> None:
        """Keeps the place.

        Args:
            directory: where (default: `model` in the trainer's `default_root_dir`).
        """
        self.directory = directory

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the checkpoint directory, from one process."""
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        export_model(pl_module, self.directory or Path(trainer.default_root_dir) / "model")

"""The verbs of the command `lightning`, also called `coincide`.

`fit`, `validate`, `test`, `predict` and `select` are LightningCLI's, on this package's trainer;
`check`, `convert`, `export`, `create-tiny-llava`, `create-tiny-clip`, `compare`, `report`,
`overlap` and `subset` are plain functions with the same kind of options and configs.
"""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import coincide_pl.data.readers
import coincide_pl.selection  # noqa: F401  (readers and selectors can be named by their class)
from coincide_pl.callbacks import WarnTruncated
from coincide_pl.command.configs import configs_first
from coincide_pl.command.launcher import GO_ON, Launcher
from coincide_pl.command.messages import one_line
from coincide_pl.command.trainer import Trainer
from coincide_pl.errors import CoincideError, ConfigError, ProcessError, printable
from coincide_pl.evaluation import Evaluate
from coincide_pl.files import Lock, write_text
from coincide_pl.interruption import Interrupted, interruption
from coincide_pl.models import ExportModel, LastCheckpoint, SelfFilterModule
from coincide_pl.models.loading import first_line
from coincide_pl.reporting.note_inputs import NoteInputs
from coincide_pl.reporting.stages import timed
from coincide_pl.reporting.tracking.callback import (
    LogToWandb,
    finish,
    go_offline_if_needed,
    log_costs,
    without_deprecated,
)
from coincide_pl.signals import WriteDifficulty, WriteSignals


class Parser(LightningArgumentParser):
    """Says what is wrong in one line, with the nearest right option or value."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["description"] = kwargs.get("description") or __doc__
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parses; `null` given to a class inside a class comes here, from jsonargparse, as None."""
        if getattr(self, "_inner_parser", False) and args:
            args = [re.sub("=None$", "=null", arg) for arg in args]
        else:
            args = configs_first(sys.argv[1:] if args is None else args)
        return super().parse_args(args, *others, **options)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Prints the line and exits with status 2."""
        if isinstance(ex, CoincideError):
            raise ex
        sys.stderr.write(f"error: {printable(one_line(message, self))}\n")
        sys.exit(2)


class SaveConfig(SaveConfigCallback):
    """Keeps the whole config of each stage in the run's directory, and in the loggers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def save_config(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Writes `<stage>.yaml`."""
        text = self.parser.dump(self.config, skip_none=False)
        path = Path(trainer.default_root_dir) / f"{trainer.state.fn.value}.yaml"  # type: ignore[union-attr]
        write_text(path, [text])
        for logger in trainer.loggers:
            if isinstance(logger, Logger):
                logger.log_hyperparams({f"{path.stem}_config": text})


class Command(LightningCLI):
    """LightningCLI with `select`, and with the callbacks that each stage can't do without."""

    def __init__(self, args: list[str] | None) -> None:
        """Parses, builds and runs."""
        super().__init__(
            trainer_class=Trainer,
            trainer_defaults={
                "default_root_dir": "runs",
                "use_distributed_sampler": False,
                "logger": False,
            },
            save_config_callback=SaveConfig,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's four, and `select`."""
        return {**LightningCLI.subcommands(), "select": {"model", "datamodule"}}

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        self._needs_model = subcommand != "select"
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds trainer, model and data; `select` accepts a model, so that configs can be shared."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{k}": v for k, v in self.trainer_defaults.items()})
        parser.add_lightning_class_args(
            lightning.LightningModule, "model", subclass_mode=True, required=self._needs_model
        )
        parser.add_lightning_class_args(lightning.LightningDataModule, "data", subclass_mode=True)
        parser.set_defaults({"data": {"class_path": "coincide_pl.datamodule.InstructionData"}})

    def before_instantiate_classes(self) -> None:
        """Lets a W&B logger without a place or name of its own use the run's."""
        config = self.config[self.subcommand]
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if getattr(logger, "class_path", "").endswith(WandbLogger.__name__):
                root = Path(config.trainer.default_root_dir)
                if logger.init_args.save_dir in (None, "."):
                    logger.init_args.save_dir = str(root)
                    root.mkdir(parents=True, exist_ok=True)
                logger.init_args.name = logger.init_args.name or f"{root.name} {self.subcommand}"
                logger.init_args.group = logger.init_args.get("group") or root.parent.name
                go_offline_if_needed()
        if self.subcommand == "select":
            config.model = None

    def instantiate_classes(self) -> None:
        """Builds what the config names; what it can't build is the config's mistake."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if not str(error).startswith("Does not validate"):
                raise
            self.parser.error(str(error))

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Gives the trainer the callbacks of its stage."""
        config = self._get(self.config_init, "trainer")
        mine: list[Any] = []
        if config.get("enable_progress_bar") is not False:
            mine.append(RichProgressBar())
        stage = self.subcommand
        if stage == "fit":
            mine += [*self._checkpoints(config), ExportModel(), NoteInputs(), LogToWandb()]
            if isinstance(self.model, SelfFilterModule):
                mine.append(WriteDifficulty())
        if stage == "test":
            mine.append(LogToWandb())
            if not any(isinstance(one, Evaluate) for one in given(config)):
                mine.insert(0, Evaluate())
        if stage == "predict":
            mine += self._signals_writer(config)
        if stage in ("fit", "test", "predict"):
            mine.append(WarnTruncated())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": mine}
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, MisconfigurationException) as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                without_deprecated(logger)
        return trainer

    def _checkpoints(self, config: Any) -> list[Any]:
        if config.get("enable_checkpointing") is False or config.get("fast_dev_run"):
            return []
        if any(isinstance(callback, ModelCheckpoint) for callback in given(config)):
            return []
        return [LastCheckpoint(Path(config["default_root_dir"]) / "checkpoints")]

    def _signals_writer(self, config: Any) -> list[Any]:
        if any(isinstance(callback, WriteSignals) for callback in given(config)):
            return []
        directory = getattr(self.datamodule, "signals", None)
        if directory is None:
            raise ConfigError("data.signals: predict needs a directory to write to")
        if not isinstance(directory, str):
            raise ConfigError("data.signals: predict writes one directory, not a list of them")
        return [WriteSignals(directory)]

    def _run_subcommand(self, subcommand: str) -> None:
        trainer: Any = self.trainer
        first = trainer.is_global_zero and not trainer.fast_dev_run
        root = trainer.default_root_dir
        status = 1
        with ExitStack() as held:
            held.callback(lambda: finish(trainer.loggers, status))
            for directory in self._outputs(root) if first else ():
                held.enter_context(Lock(directory))
            if subcommand == "fit" and not self.config[subcommand].get("ckpt_path"):
                interruption.advice = "the same command with --ckpt_path=last goes on from here"
            with timed(root, subcommand) if first else nullcontext():
                self._run_stage(subcommand, first)
            if subcommand == "fit":
                log_costs(trainer)
            status = 0

    def _run_stage(self, subcommand: str, first: bool) -> None:
        trainer: Any = self.trainer
        try:
            if first and subcommand == "select":  # no callback of Lightning's sees this verb
                text = self._parser(subcommand).dump(self.config[subcommand], skip_none=False)
                write_text(Path(trainer.default_root_dir) / "select.yaml", text)
            super()._run_subcommand(subcommand)
        except CoincideError:
            raise
        except Exception as error:
            self._explain(error)
            raise
        else:
            if isinstance(trainer.strategy.launcher, Launcher):
                trainer.strategy.launcher.wait()
        finally:
            if isinstance(trainer.strategy.launcher, Launcher):
                trainer.strategy.launcher.end()

    def _explain(self, error: Exception) -> None:
        """Tells whether another process is behind an error.

        Raises:
            Interrupted: the processes are about to end, and this is how one of them hears of it.
            ProcessError: one was lost.
        """
        if str(error).startswith("DataLoader worker"):  # killed, most often for want of memory
            raise ProcessError(f"{first_line(error)}; {GO_ON}") from error
        launcher = self.trainer.strategy.launcher
        if not isinstance(launcher, Launcher):
            return
        if interruption.asked is None:
            error = launcher.explain(error)
        if interruption.asked is not None:
            raise Interrupted from error
        if isinstance(error, ProcessError):
            raise error

    def _outputs(self, root: str) -> list[Path]:
        """Directories that a run has for itself."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        stores = [one.directory for one in callbacks if isinstance(one, WriteSignals)]
        return sorted({Path(directory).resolve() for directory in (root, *stores)})


def given(config: Any) -> list[Any]:
    """The callbacks that a trainer's config names; one alone need not be in a list."""
    callbacks = config.get("callbacks") or []
    return callbacks if isinstance(callbacks, list) else [callbacks]

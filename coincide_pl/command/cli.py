"""The stages of the command: LightningCLI on this package's trainer, one verb at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger

import coincide_pl.data.readers  # noqa: F401  (readers can be named by their class alone)
from coincide_pl import ranks
from coincide_pl.callbacks import ProgressLines, WarnTruncated
from coincide_pl.command.configs import options
from coincide_pl.command.environments import as_started
from coincide_pl.command.launcher import Launcher, end_with_parent
from coincide_pl.command.mistakes import as_mistake, check_trainer, line
from coincide_pl.command.parser import Parser
from coincide_pl.command.places import checkpoint_for, fill_root
from coincide_pl.command.quiet import quiet_libraries
from coincide_pl.command.trainer import Trainer
from coincide_pl.command.urls import refuse_urls
from coincide_pl.command.verbs import Verb
from coincide_pl.command.versions import join_fit
from coincide_pl.command.watch import watch
from coincide_pl.data.shards.places import is_url
from coincide_pl.errors import GO_ON, CoincideError, ConfigError, ProcessError
from coincide_pl.evaluation import Evaluate
from coincide_pl.files import write_text
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
    resumed,
    without_deprecated,
)
from coincide_pl.selection import *  # noqa: F403  (selectors can be named by their class alone)
from coincide_pl.signals import WriteDifficulty, WriteSignals
from coincide_pl.signals.remote import owner

OF_FIT = ("ckpt_path", "weights_only")
"""Options of fit that `select` and `predict` accept, so that they can be given its config whole."""


def run_stage(verb: Verb, words: Sequence[str]) -> None:
    """Parses a stage's words, builds what they name, and runs it.

    Args:
        verb: one of Lightning's, or `select`.
        words: of the command line, after the verb.
    """
    quiet_libraries()
    who = ranks.started()
    if ranks.local_rank() != 0 or (who is not None and who.by == "torchrun"):
        end_with_parent()
    Command(verb, words).run()


class StageParser(Parser, LightningArgumentParser):
    """LightningCLI's parser, with this package's messages."""


class SaveConfig(SaveConfigCallback):
    """Keeps the whole config of each stage in the run's directory, and in the loggers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Writes at once, but for a fit, which may be refused where another one began."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Writes a fit's config."""
        super().setup(trainer, pl_module, "fit")

    def save_config(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Writes `<stage>.yaml`."""
        text = self.parser.dump(self.config, skip_none=False)
        path = Path(trainer.default_root_dir) / f"{trainer.state.fn.value}.yaml"  # type: ignore[union-attr]
        write_text(path, [text])
        for logger in trainer.loggers:
            if isinstance(logger, Logger):
                whole = isinstance(logger, WandbLogger)  # compare reads it there
                named = {f"{path.stem}_config": text} if whole else options(yaml.safe_load(text))
                logger.log_hyperparams(named)


class Command(LightningCLI):
    """LightningCLI for one verb, with the callbacks that a stage can't do without."""

    def __init__(self, verb: Verb, words: Sequence[str]) -> None:
        """Parses, and builds model, data and trainer.

        Args:
            verb: the stage.
            words: of the command line, after the verb.
        """
        self.verb = verb.name
        super().__init__(
            trainer_class=Trainer,
            trainer_defaults={
                "default_root_dir": None,
                "use_distributed_sampler": False,
                "logger": False,
            },
            save_config_callback=SaveConfig,
            parser_class=StageParser,
            parser_kwargs={"prog": f"coincide {verb.name}", "description": verb.about},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            run=False,  # its subcommands would build the parsers of all verbs each time
            args=list(words),
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds trainer, model and data; `select` accepts a model, so that configs can be shared."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{k}": v for k, v in self.trainer_defaults.items()})
        parser.add_lightning_class_args(
            lightning.LightningModule,
            "model",
            subclass_mode=True,
            required=self.verb != "select",
        )
        parser.add_lightning_class_args(lightning.LightningDataModule, "data", subclass_mode=True)
        parser.set_defaults({"data": {"class_path": "coincide_pl.datamodule.InstructionData"}})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what the trainer's method for the stage takes, beside model and data."""
        built = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
        self.method_options = parser.add_method_arguments(Trainer, self.verb, skip=built)
        if self.verb in ("select", "predict"):
            for name in OF_FIT:
                parser.add_argument(f"--{name}", help="has no effect here; a config of fit has it")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the words; Lightning would warn that they do not come from the process's own."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Fills in what depends on other options, such as the place and name of a W&B logger."""
        config = self.config
        fill_root(config, self.verb)
        refuse_urls(config)
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if getattr(logger, "class_path", "").endswith(WandbLogger.__name__):
                root = Path(config.trainer.default_root_dir)
                if logger.init_args.save_dir in (None, "."):
                    logger.init_args.save_dir = str(root)
                    root.mkdir(parents=True, exist_ok=True)
                logger.init_args.name = logger.init_args.name or f"{root.name} {self.verb}"
                logger.init_args.group = logger.init_args.get("group") or root.parent.name
                if self.verb == "fit" and config.get("ckpt_path"):
                    for name, value in resumed(root, logger.init_args.get("id")).items():
                        logger.init_args[name] = value
                go_offline_if_needed()
            if self.verb in ("validate", "test"):
                join_fit(logger, Path(config.trainer.default_root_dir), self.verb)
        if self.verb == "select":
            config.model = None
        if self.verb in ("select", "predict"):
            for name in OF_FIT:
                del config[name]

    def instantiate_classes(self) -> None:
        """Builds what the config names; what it can't build is the config's mistake."""
        try:
            super().instantiate_classes()
        except CoincideError:
            raise
        except Exception as error:
            self.parser.error(str(error) or type(error).__name__, error)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Gives the trainer the callbacks of its stage."""
        config = self.config_init["trainer"]
        mine: list[Any] = []
        if config.get("enable_progress_bar") is not False:
            mine += [RichProgressBar(), ProgressLines()]
        stage = self.verb
        if stage == "fit":
            # The one that exports comes first: it may refuse the fit, and the others note what it
            # has left.
            exports = any(isinstance(one, ExportModel) for one in given(config))
            mine += [*self._checkpoints(config), *([] if exports else [ExportModel()])]
            mine += [NoteInputs(), LogToWandb()]
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
            trainer = super().instantiate_trainer(**kwargs, **as_started(config))
        except CoincideError:
            raise
        except Exception as error:
            raise line("trainer", error) from error
        if stage == "fit":
            readers = getattr(self.datamodule, "readers", {"val": True})
            check_trainer(trainer, self.model, readers["val"] is not None)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                without_deprecated(logger)
        return trainer

    def _checkpoints(self, config: Any) -> list[Any]:
        if config.get("enable_checkpointing") is False or config.get("fast_dev_run"):
            return []
        own = [one for one in given(config) if isinstance(one, ModelCheckpoint)]
        if any(one.save_last for one in own):
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

    def run(self) -> None:
        """Runs the stage, alone in its directories, and notes how long it took."""
        trainer: Any = self.trainer
        first = trainer.is_global_zero and not trainer.fast_dev_run
        root = trainer.default_root_dir
        status = 1
        with ExitStack() as held:
            held.callback(lambda: finish(trainer.loggers, status))
            for directory in self._outputs(root) if first else ():
                held.enter_context(owner(directory))
            if self.verb == "fit" and not self.config.get("ckpt_path"):
                interruption.advice = "the same command with --ckpt_path=last goes on from here"
            with timed(root, self.verb) if first else nullcontext():
                self._run_method(first)
            if self.verb == "fit":
                log_costs(trainer)
            status = 0

    def _run_method(self, first: bool) -> None:
        trainer: Any = self.trainer
        options = {name: self.config_init[name] for name in self.method_options}
        if "ckpt_path" in options:
            keepers = trainer.checkpoint_callbacks
            options["ckpt_path"] = checkpoint_for(self.verb, options["ckpt_path"], keepers)
        try:
            if first and self.verb == "select":  # no callback of Lightning's sees this verb
                text = self.parser.dump(self.config, skip_none=False)
                write_text(Path(trainer.default_root_dir) / "select.yaml", text)
            getattr(trainer, self.verb)(self.model, datamodule=self.datamodule, **options)
        except CoincideError:
            raise
        except Exception as error:
            self._explain(error)
            if (mistake := as_mistake(error)) is not None:
                raise mistake from error
            raise
        else:
            watch.through()
            if isinstance(trainer.strategy.launcher, Launcher):
                trainer.strategy.launcher.wait()
        finally:
            if isinstance(trainer.strategy.launcher, Launcher):
                trainer.strategy.launcher.end()

    def _explain(self, error: Exception) -> None:
        """Raises what is behind an error, where another process is.

        Raises:
            Interrupted: the processes are about to end, and this is how one of them hears of it.
            ProcessError: one was lost.
        """
        if interruption.asked is not None:
            raise Interrupted from error
        if str(error).startswith("DataLoader worker"):  # killed, most often for want of memory
            raise ProcessError(f"{first_line(error)}; {GO_ON}") from error
        launcher = self.trainer.strategy.launcher
        if not isinstance(launcher, Launcher):
            return
        error = launcher.explain(error)
        if interruption.asked is not None:
            raise Interrupted from error
        if isinstance(error, ProcessError):
            raise error

    def _outputs(self, root: str) -> list[str]:
        """Directories and addresses that a run has for itself."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        stores = [one.directory for one in callbacks if isinstance(one, WriteSignals)]
        return sorted({one if is_url(one) else str(Path(one).resolve()) for one in (root, *stores)})


def given(config: Any) -> list[Any]:
    """The callbacks that a trainer's config names; one alone need not be in a list."""
    callbacks = config.get("callbacks") or []
    return callbacks if isinstance(callbacks, list) else [callbacks]

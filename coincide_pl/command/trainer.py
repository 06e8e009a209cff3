"""Lightning's Trainer, and beside its verbs one more: select."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from coincide_pl.callbacks import EndBetweenBatches, SameSteps
from coincide_pl.command import lightning_internals as internals
from coincide_pl.command.launcher import Launcher, check_started, meeting, others_are_mine
from coincide_pl.command.watch import watch
from coincide_pl.datamodule import InstructionData
from coincide_pl.models.checkpoint import Checkpoints


class Trainer(lightning.Trainer):
    """Runs fit, validate, test, predict and select."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Builds Lightning's Trainer from its own arguments, then puts this package's parts in."""
        super().__init__(*args, **kwargs)
        internals.allow_unused_parameters(self.strategy)  # a batch may be without any image
        internals.replace_launcher(self.strategy, Launcher)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = Checkpoints()
        self.callbacks[:0] = [EndBetweenBatches(), SameSteps()]  # type: ignore[attr-defined]
        internals.ignore_sigterm(self)  # the command has its own ways to end
        check_started(self.world_size)
        self._meet = self.strategy.setup_environment
        self.strategy.setup_environment = self._setup_environment  # type: ignore[method-assign]

    def _setup_environment(self) -> None:
        """Meets the other processes of the run, where there are some."""
        environment = getattr(self.strategy, "cluster_environment", None)
        if self.world_size == 1 or environment is None:
            self._meet()
            return
        with meeting(environment, self.world_size, self.num_nodes):
            self._meet()
            if self.num_nodes > 1 or not others_are_mine():
                others = self.strategy.broadcast
                watch.begin(self.global_rank, self.world_size, environment.main_address, others)

    def select(self, model: None = None, *, datamodule: InstructionData) -> None:
        """Chooses training data from signals and writes the selection file.

        Args:
            model: has no part in it; every verb of the command is given one.
            datamodule: holds the data, the selector, and the place of the signals.
        """
        self.state.fn = TrainerFn.PREDICTING  # Lightning's own verbs are all that it knows
        self.state.status = TrainerStatus.RUNNING
        self.strategy.connect(lightning.LightningModule())  # it expects one; this one is empty
        if self.strategy.launcher is None:
            self._select(datamodule)
        else:
            self.strategy.launcher.launch(self._select, datamodule, trainer=self)
        self.state.status = TrainerStatus.FINISHED

    def _select(self, datamodule: InstructionData) -> None:
        self.strategy.setup_environment()
        datamodule.trainer = self
        try:
            datamodule.setup("select")
        finally:
            self.strategy.teardown()

    def predict(self, *args: Any, **kwargs: Any) -> None:
        """Runs the reference model over the data; callbacks keep what it gives."""
        super().predict(*args, **{**kwargs, "return_predictions": False})

"""Lightning's Trainer, and beside its verbs one more: select."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from coincide_pl.callbacks import EndBetweenBatches
from coincide_pl.command.launcher import Launcher
from coincide_pl.datamodule import InstructionData
from coincide_pl.models.checkpoint import Checkpoints


class Trainer(lightning.Trainer):
    """Runs fit, validate, test, predict and select."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes Lightning's arguments."""
        super().__init__(*args, **kwargs)
        if isinstance(self.strategy, DDPStrategy):
            # A batch without images gives the vision tower no gradient.
            self.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        old = self.strategy.launcher
        if type(old) is _SubprocessScriptLauncher:
            self.strategy._launcher = Launcher(
                old.cluster_environment, old.num_processes, old.num_nodes
            )
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = Checkpoints()
        self.callbacks.insert(0, EndBetweenBatches())  # type: ignore[attr-defined]
        # The command has its own ways to end; this one would wait for other processes in a handler.
        self._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]

    def select(self, model: None = None, *, datamodule: InstructionData) -> None:
        """Chooses training data from signals and writes the selection file.

        Args:
            model: has no part in it; every verb of LightningCLI is given one.
            datamodule: holds the data, the selector, and the place of the signals.
        """
        self.state.fn = TrainerFn.PREDICTING  # Lightning's own verbs are all that it knows
        self.state.status = TrainerStatus.RUNNING
        # A strategy expects some module; this one has nothing in it.
        self.strategy._lightning_module = lightning.LightningModule()
        call._call_and_handle_interrupt(self, self._select, datamodule)
        self.state.status = TrainerStatus.FINISHED

    def _select(self, datamodule: InstructionData) -> None:
        self.strategy.setup_environment()
        datamodule.trainer = self
        datamodule.setup("select")
        self.strategy.teardown()

    def predict(self, *args: Any, **kwargs: Any) -> None:
        """Runs the reference model over the data; callbacks keep what it gives."""
        super().predict(*args, **{**kwargs, "return_predictions": False})

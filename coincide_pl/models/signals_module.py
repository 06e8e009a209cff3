"""What the modules of `predict` share: a checkpoint, and the signals that are made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning
from transformers import PreTrainedModel

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import DType, check_directory, checkpoint_fingerprint
from coincide_pl.signals.forward import Needs
from coincide_pl.signals.signal import Signal, making
from coincide_pl.signals.writer import writers


class SignalsModule(lightning.LightningModule, ABC):
    """A module whose `predict_step` gives rows of signals, from a checkpoint loaded when needed.

    A subclass says what it `makes`, loads `model` in `configure_model`, and gives the `facts` of
    the model that the shapes of signals depend on.

    Attributes:
        signals: what it makes rows of.
        settings: its options that change the rows, by name.
        model: the loaded checkpoint; None before `configure_model`.
    """

    about = ""
    """What the module is, as an error calls it."""

    def __init__(
        self,
        pretrained: str,
        signals: Sequence[Signal],
        dtype: DType,
        attn_implementation: str,
        **settings: Any,
    ) -> None:
        """Checks that there is a checkpoint, and that it gives what the signals need.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub.
            signals: what to write.
            dtype: in which the weights are held and the forward pass runs.
            attn_implementation: attention implementation of transformers.
            settings: further options that change the rows, by name.

        Raises:
            ModelError: there is no checkpoint, or a signal needs another model.
        """
        super().__init__()
        check_directory(pretrained, "config.json")
        for signal in signals:
            if not self.makes(signal.needs):
                raise ModelError(
                    f"signals: {self.about} does not make {signal.name}: {making([type(signal)])}"
                )
        self.pretrained = pretrained
        self.signals = list(signals)
        self.weights_dtype: DType = dtype
        self.attn_implementation = attn_implementation
        self.settings = {"dtype": dtype, "attn_implementation": attn_implementation, **settings}
        self.model: PreTrainedModel | None = None

    @abstractmethod
    def makes(self, needs: Needs) -> bool:
        """Whether a pass of this module gives what a signal needs."""

    def configure_callbacks(self) -> list[lightning.Callback]:
        """Writes signals wherever `data.signals` says so, with a plain Trainer too."""
        return writers(self.trainer)

    @property
    def fingerprint(self) -> str:
        """Digest of the checkpoint that the signals come from."""
        return checkpoint_fingerprint(self.pretrained)

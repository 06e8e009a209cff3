"""Models that are too large for one device: pieces on each, put together layer by layer."""

from __future__ import annotations

from typing import cast

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from coincide_pl.models.parts import decoder_layers

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
"""Strategies under which a process does not hold the whole model."""


def shard(strategy: Strategy, model: PreTrainedModel, layers: str | None = None) -> None:
    """Under `ModelParallelStrategy`, split each decoder layer, and the rest, over the processes.

    This is PyTorch's fully sharded data parallelism (FSDP 2); other strategies split by themselves.

    Args:
        strategy: of the trainer.
        model: an image-text-to-text model.
        layers: the path of its decoder layers, where they are not found.
    """
    if not isinstance(strategy, ModelParallelStrategy):
        return
    # All processes share the data: the strategy's own mesh would have those of a machine share
    # each product of matrices instead.
    mesh = init_device_mesh(strategy.root_device.type, (strategy.world_size,))
    mixed = strategy.precision_plugin.precision == "bf16-mixed"
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    )
    for layer in decoder_layers(model, layers):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def whole_state(strategy: Strategy, module: LightningModule) -> dict[str, Tensor] | None:
    """All parameters of a module that lies in pieces, on the first process; all must call this.

    Args:
        strategy: of the trainer.
        module: what it trains.

    Returns:
        By name, on the CPU; None on other processes, and where the module is whole.
    """
    if isinstance(strategy, DeepSpeedStrategy):
        import deepspeed

        first = strategy.is_global_zero
        with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=None):
            named = module.named_parameters() if first else ()
            state = {name: value.detach().cpu().clone() for name, value in named}
        return state if first else None
    if not isinstance(strategy, SHARDED):
        return None
    # The strategy's own way would give pieces where its checkpoints are in pieces.
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = get_model_state_dict(strategy.model or module, options=options)
    return cast("dict[str, Tensor]", whole)

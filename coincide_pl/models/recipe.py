"""The options that a training's course depends on, kept in its checkpoints and compared there.

A second start that names others would go on with what is neither the one training nor the other:
rows left out or trained on twice, the weights of one start under the name of another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from coincide_pl.errors import ConfigError, DataError, SelectionError
from coincide_pl.processes import on_first_process

Recipe = dict[str, str]
"""Options and their values as JSON, such as `{"data.batch_size": "8"}`."""
ACCUMULATED = "trainer.accumulate_grad_batches"
PROCESSES = "the number of processes (trainer.devices times num_nodes)"


def recipe(options: Mapping[str, object]) -> Recipe:
    """Options as they are kept in a checkpoint, which holds nothing but plain values."""
    return {name: json.dumps(value, default=str) for name, value in options.items()}


def optimizer_options(
    optimizer: OptimizerCallable, scheduler: LRSchedulerCallable, num_groups: int
) -> dict[str, object]:
    """The classes and arguments of an optimizer and its schedule, by option.

    Args:
        optimizer: makes the optimizer, and is tried on parameters of no other use.
        scheduler: makes the schedule.
        num_groups: parameter groups of the training.
    """
    made = optimizer([{"params": [nn.Parameter(torch.zeros(1, 1))]} for _ in range(num_groups)])
    schedule = scheduler(made)
    plain = {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | str)}
    return {
        "model.optimizer": type(made).__qualname__,
        **{f"model.optimizer.{name}": value for name, value in made.defaults.items()},
        "model.scheduler": type(schedule).__qualname__,
        **{f"model.scheduler.{n}": v for n, v in plain.items() if not n.startswith("_")},
    }


def check_goes_on(
    run: str | Path,
    kept: Mapping[str, Any],
    now: Mapping[str, Any],
    images_state: Callable[[str], str],
) -> None:
    """Refuses to go on with a fit of other data or images, or of another plan of batches.

    Args:
        run: the fit's directory.
        kept: state of the DataModule in the checkpoint: fingerprints of `data`, `images` and
            `selection`, and the `recipe`.
        now: the same of this start.
        images_state: a digest of the images, by `time` or `content`.

    Raises:
        SelectionError: the checkpoint was trained on other data or another selection.
        DataError: images have changed.
        ConfigError: options that the plan depends on were others.
    """
    if any(kept[name] != now[name] for name in ("data", "selection")):
        raise SelectionError(
            f"{run}: its checkpoint was trained on other data or another selection; name "
            "another trainer.default_root_dir, or delete its checkpoints to start afresh"
        )
    images = kept.get("images", now["images"])
    by, _, _ = images.partition(":")
    if images != on_first_process(lambda: images_state(by)):
        raise DataError(
            f"{run}: images have changed since its fit began; name another "
            "trainer.default_root_dir, or delete its checkpoints to start afresh. Images that "
            "were copied, and are the same, need --data.images_by=content from the beginning"
        )
    check_same(run, with_processes_of(now["recipe"], kept.get("recipe", {})), now["recipe"])


def with_processes_of(now: Recipe, kept: Mapping[str, str]) -> Mapping[str, str]:
    """What a training was begun with, with the processes of another start where its steps are same.

    An optimizer step takes the next batches of the plan, as many as processes times accumulated
    batches: where that product is the same, so is every step.
    """
    both = (PROCESSES, ACCUMULATED)
    if not all(name in kept for name in both):
        return kept
    before, after = (math.prod(json.loads(one[name]) for name in both) for one in (kept, now))
    return {**kept, **{name: now[name] for name in both}} if before == after else kept


def check_same(run: str | Path, kept: Mapping[str, str], now: Recipe) -> None:
    """Refuses to go on with a training whose options were others.

    Args:
        run: the training's directory.
        kept: its recipe; an option that it lacks, for an older version kept less, may be any.
        now: the recipe of this start.

    Raises:
        ConfigError: naming the options, with the value that each had and the one that it has.
    """
    changed = [
        f"{name} was {kept[name]}, and now is {now.get(name, 'absent')}"
        for name in kept
        if kept[name] != now.get(name)
    ]
    if changed:
        error = ConfigError(
            f"{run}: its fit began with other options: {'; '.join(changed)}. Give them as they "
            "were, name another trainer.default_root_dir, or delete its checkpoints to start afresh"
        )
        error.shared = True  # all processes have the same options
        raise error

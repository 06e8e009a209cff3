"""The names that Lightning calls private and this package can't do without, all in this file.

`tests/command/test_lightning_internals.py` fails when Lightning changes what is relied on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.strategies import Strategy


class ScriptLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, which starts the command again for each other process."""

    def start_others(self) -> None:
        """Starts the other processes of this machine, into `procs`."""
        self._call_children_scripts()


class SlurmEnvironment(SLURMEnvironment):
    """Lightning's, for any number of tasks on each node.

    Lightning wants `--ntasks-per-node`, because it works out the processes of a run from a node's.
    """

    @staticmethod
    def _validate_srun_variables() -> None:
        pass


def replace_launcher(strategy: Strategy, kind: type[ScriptLauncher]) -> None:
    """Lets a strategy whose launcher is Lightning's own start its processes by another kind."""
    old = strategy.launcher
    if type(old) is _SubprocessScriptLauncher:
        strategy._launcher = kind(old.cluster_environment, old.num_processes, old.num_nodes)


def allow_unused_parameters(strategy: Strategy) -> None:
    """Lets DDP accept a step in which some parameter gets no gradient, unless it was told so."""
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def ignore_sigterm(trainer: lightning.Trainer) -> None:
    """Takes Lightning's part out of its handler of SIGTERM: it waits for other processes there.

    A handler that was there before Lightning's stays, and is called.
    """
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]

"""Lost if these fail: what Lightning calls private and the command relies on, after an update."""

import ast
import signal
from pathlib import Path

import lightning
import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

import coincide_pl.command
from coincide_pl.command import lightning_internals as internals
from coincide_pl.command.launcher import Launcher
from coincide_pl.command.trainer import Trainer


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
    )


def test_the_strategy_uses_this_package_s_launcher(trainer):
    assert type(trainer.strategy.launcher) is Launcher
    assert trainer.strategy.launcher.num_processes == 2


def test_the_launcher_starts_the_command_again_for_each_other_process(monkeypatch):
    started = []

    class Process:
        def __init__(self, command, env, cwd):
            started.append((command, env["LOCAL_RANK"], env["WORLD_SIZE"]))

    monkeypatch.setattr("subprocess.Popen", Process)
    monkeypatch.setattr("os.environ", {})
    launcher = internals.ScriptLauncher(LightningEnvironment(), num_processes=3, num_nodes=1)
    launcher.start_others()
    assert [(rank, size) for _, rank, size in started] == [("1", "3"), ("2", "3")]
    assert len(launcher.procs) == 2


def test_ddp_is_told_of_unused_parameters(trainer):
    assert trainer.strategy.__dict__["_ddp_kwargs"]["find_unused_parameters"] is True
    chosen = DDPStrategy(find_unused_parameters=False)
    internals.allow_unused_parameters(chosen)
    assert chosen.__dict__["_ddp_kwargs"]["find_unused_parameters"] is False


class Ask(lightning.LightningModule):
    """Sends the process SIGTERM while it trains."""

    def train_dataloader(self):
        return [0]

    def training_step(self, batch):
        signal.raise_signal(signal.SIGTERM)

    def configure_optimizers(self):
        return None


def test_lightning_takes_no_part_in_sigterm(tmp_path):
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    try:
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            **options,
        )
        with pytest.warns():
            trainer.fit(Ask())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == [1]
    assert not trainer.received_sigterm


def test_no_other_file_of_the_command_uses_a_private_name():
    for path in Path(coincide_pl.command.__file__).parent.glob("*.py"):
        if path.name == "lightning_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "os", "cls")
                names = [] if own else [node.attr]
            else:
                continue
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            assert not private, f"{path.name}: {private}"

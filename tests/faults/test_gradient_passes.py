"""Lost if these fail: gradients and what is chosen by them, byte for byte, whatever processes."""

import shutil
import signal

import pytest
from harness import All, AtCall
from stages import ROOT
from test_invariance import KEPT, Rank, free_port
from test_kills import OFTEN

from coincide_pl.signals import load_signals

STEP = "coincide_pl.models.gradients:GradientModule.predict_step"
SIGNALS = (
    "[{class_path: Gradient, init_args: {size: 64}}, gradient_norm,"
    " {class_path: AdamGradient, init_args: {size: 64}}]"
)


@pytest.fixture
def words(runner, tiny, llava, tmp_path):
    """The command that writes gradients, but for where to; a warm-up has run."""

    def command(verb, *more):
        return (
            *(verb, "--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
            *(f"--data.cache_dir={tmp_path}/cache", "--data.num_workers=0", "--data.batch_size=7"),
            *("--trainer.accelerator=cpu", "--trainer.logger=false", f"--model.pretrained={tiny}"),
            *("--trainer.enable_progress_bar=false", *more),
        )

    result = runner(
        *command("fit", "--config", ROOT / "configs/models/target_lora.yaml"),
        *("--config", ROOT / "configs/trainers/warm_up.yaml", "--trainer.max_epochs=1"),
        *("--model.lora.rank=4", f"--trainer.default_root_dir={tmp_path}/warm"),
    )
    assert result.status == 0, result.message
    return command(
        *("predict", "--config", ROOT / "configs/models/gradients.yaml"),
        *(f"--model.warm_up={tmp_path}/warm", f"--model.signals={SIGNALS}"),
        f"--trainer.default_root_dir={tmp_path}/run",
    )


def in_two(runner, *words):
    """Runs a command in two processes; fails if it does."""
    port, two = free_port(), ("--trainer.devices=2", "--trainer.strategy=ddp")
    ranks = [runner.start(*words, *two, fault=All((KEPT, Rank(rank, 2, port)))) for rank in (0, 1)]
    for one in ranks:
        result = one.end()
        assert result.status == 0, result.message


def test_gradients_and_choices_are_the_same_after_a_kill_and_from_two_processes(
    runner, words, llava, tmp_path
):
    whole, killed, both = (tmp_path / name for name in ("whole", "killed", "both"))
    assert runner(*words, f"--data.signals={whole}").status == 0
    result = runner(*words, f"--data.signals={killed}", fault=All((*OFTEN, AtCall(STEP, 4))))
    assert result.status == -signal.SIGKILL, result.message
    # Of 9 batches 3 are done: a pass that began anew would come to a seventh.
    result = runner(*words, f"--data.signals={killed}", fault=AtCall(STEP, 7))
    assert result.status == 0, result.message
    in_two(runner, *words, f"--data.signals={both}")
    assert len(list((both / "shards").glob("*.rows"))) == 2
    for name in ("gradient", "adam_gradient", "gradient_norm", "task"):
        for store in (killed, both):
            assert (store / f"{name}.npy").read_bytes() == (whole / f"{name}.npy").read_bytes()
    store = load_signals(both)
    names = store.manifest.signals["task"].arguments["names"]
    assert [names[number] for number in store["task"][:6]] == [*["coco", "vg"] * 2, "coco", "text"]

    selectors = {
        "Less": (f"--data.selector.targets=[{both}]",),
        "Icons": (f"--data.selector.targets=[{both}]",),
        "PerSource": ("--data.selector.selector=Tive",),
    }
    for name, more in selectors.items():
        chosen = [
            *("select", "--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
            *(f"--data.cache_dir={tmp_path}/cache", "--trainer.accelerator=cpu"),
            *(f"--data.signals={both}", f"--data.selector={name}", *more, "--data.fraction=0.3"),
        ]
        files = [tmp_path / f"{name}-{count}" for count in (1, 2)]
        one, two = (f"--trainer.default_root_dir={file}" for file in files)
        result = runner(*chosen, one)
        assert result.status == 0, result.message
        shutil.rmtree(
            both / "selection", ignore_errors=True
        )  # so that the two choose by themselves
        in_two(runner, *chosen, two)
        made = [(file / "selection.safetensors").read_bytes() for file in files]
        assert made[0] == made[1], name

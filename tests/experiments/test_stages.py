"""Lost if these fail: experiments whose every stage has a config that is valid."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CELLS = [
    f"data.selector={name}" for name in ("random", "self_filter", "coincide", "semdedup", "el2n")
]


def stages(*words):
    """The commands that make would run, without running them."""
    done = subprocess.run(
        ["make", "-n", "-B", *words],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if "/lightning " in line]


@pytest.mark.parametrize(
    ("words", "verbs"),
    [
        (["-f", "experiments/llava15/stages.mk"], {"convert", "predict", "select", "fit"}),
        (["-f", "experiments/vision_flan/stages.mk"], {"convert", "predict", "select", "fit"}),
        (["-f", "experiments/llava15/sweep.mk"], {"convert", "predict", "fit"}),
        (["-f", "experiments/vision_flan/sweep.mk"], {"convert", "predict", "fit"}),
        *((["-f", "experiments/llava15/sweep.mk", "cell", cell], {"fit"}) for cell in CELLS),
        (["-f", "experiments/compositions/stages.mk"], {"fit", "predict", "test"}),
        (["-f", "experiments/mix/sweep.mk", "cell", "data.selector=semdedup"], {"select"}),
        (["-f", "experiments/mix/stages.mk"], {"assemble", "fit", "predict", "test"}),
    ],
)
def test_every_stage_has_a_valid_config(words, verbs, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = stages(*words)
    assert verbs <= {words[0] for words in commands}
    for verb, *options in commands:
        if verb in ("fit", "predict", "select"):
            status, out, said = command(verb, *options, "--print_config")
            assert status == 0, said
            assert "class_path: coincide_pl" in out

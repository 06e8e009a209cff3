"""Lost if these fail: the same result from two processes as from one, and from two starts."""

import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coincide_pl.models import LastCheckpoint, TargetModule, checkpoint
from coincide_pl.signals import SignalsStore

ROOT = Path(__file__).parents[1]
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


def coincide(*words):
    """Runs the command as users do, with one thread per process; returns status and stderr."""
    done = subprocess.run(
        [Path(sys.executable).parent / "coincide", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def options(llava, tmp_path, *more):
    return (
        *("--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--data.num_workers=0", "--data.batch_size=8"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *more),
    )


def test_two_processes_choose_as_one_does_and_train_on_it(tiny, llava, tmp_path):
    for name, processes in {"one": (), "two": TWO}.items():
        run = tmp_path / name
        place = (f"--data.signals={run}/signals", f"--trainer.default_root_dir={run}", *processes)
        reference = (
            *("--config", ROOT / "configs/models/reference.yaml", f"--model.pretrained={tiny}"),
            "--model.layers=[0, 2]",
        )
        status, told = coincide("predict", *options(llava, tmp_path, *reference, *place))
        assert status == 0, told
        coincide_selector = ("--config", ROOT / "configs/selectors/coincide.yaml")
        words = (*coincide_selector, "--data.selector.num_clusters=6", *place)
        status, told = coincide("select", *options(llava, tmp_path, *words))
        assert status == 0, told
        assert told.count("12 of 60 samples") == 1
    one, two = (SignalsStore(tmp_path / name / "signals") for name in ("one", "two"))
    assert len(list((tmp_path / "two/signals").glob("done.*"))) == 2
    assert one.fingerprint == two.fingerprint
    files = [(tmp_path / name / "selection.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    target = ("--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}")
    words = (*words, *target, "--trainer.max_epochs=2")
    status, told = coincide("fit", *options(llava, tmp_path, *words))
    assert status == 0, told
    assert "used again" in told
    before, after = (load_file(Path(p) / "model.safetensors") for p in (tiny, run / "model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_two_processes_answer_as_one_does(tiny, llava, tmp_path):
    """In many batches, and in one, of which the second process has none of its own."""
    for batch_size in (8, 60):
        for name, processes in {"one": (), "two": TWO}.items():
            status, told = coincide(
                *("test", "--model=TargetModule", f"--model.pretrained={tiny}", *processes),
                *("--model.max_new_tokens=2", "--data=InstructionData", "--data.test=LlavaJson"),
                *(f"--data.test.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
                *(f"--data.batch_size={batch_size}", "--data.max_length=512"),
                *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
                f"--trainer.default_root_dir={tmp_path}/{name}",
            )
            assert status == 0, told
        for file in ("results.json", "answers.jsonl"):
            one, two = (tmp_path / name / file for name in ("one", "two"))
            assert one.read_text() == two.read_text()
            one.unlink()


def test_two_processes_print_a_mistake_once(llava, tiny, tmp_path):
    llava.write_text(llava.read_text().replace('"gpt"', '"robot"', 1))
    words = ("--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}")
    words = (*words, f"--trainer.default_root_dir={tmp_path}/run", *TWO)
    status, told = coincide("fit", *options(llava, tmp_path, *words))
    assert status == 1
    assert told.count("error: ") == 1, told
    assert "'from' 'robot'" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("lora", [False, True])
def test_an_interrupted_fit_goes_on_inside_its_epoch(
    command, llava, tiny, tmp_path, monkeypatch, lora
):
    monkeypatch.setattr(checkpoint, "SECONDS", 1e-9)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    name = "target_lora" if lora else "target"
    words = (
        *("fit", "--config", ROOT / f"configs/models/{name}.yaml", f"--model.pretrained={tiny}"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml", "--trainer.max_epochs=2"),
        *options(llava, tmp_path, "--model.optimizer.lr=1e-3"),
    )
    if lora:
        words = (*words, "--model.lora.dropout=0")  # random numbers are not resumed
    status, _, told = command(*words, f"--trainer.default_root_dir={tmp_path}/whole")
    assert status == 0, told

    step, handler = TargetModule.training_step, signal.getsignal(signal.SIGINT)
    rows = []

    def watched(self, batch, batch_idx):
        if len(rows) == 11:
            raise KeyboardInterrupt
        rows.append(batch.rows.tolist())
        return step(self, batch, batch_idx)

    place = f"--trainer.default_root_dir={tmp_path}/parts"
    with monkeypatch.context() as patch:
        patch.setattr(TargetModule, "training_step", watched)
        status, _, told = command(*words, place)
    signal.signal(signal.SIGINT, handler)
    assert status == 1
    assert not (tmp_path / "parts/model").exists()

    def counted(self, batch, batch_idx):
        rows.append(batch.rows.tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TargetModule, "training_step", counted)
    status, _, told = command(*words, place)
    assert status == 0, told
    assert len(rows) == 2 * 9  # 7 batches with images and 2 without
    assert sorted(chain(*rows[:9])) == list(range(60))
    assert sorted(chain(*rows[9:])) == list(range(60))
    whole, parts = (load_file(tmp_path / n / "model/model.safetensors") for n in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-5)


def test_a_checkpoint_of_other_data_is_refused(command, llava, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 1e-9)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    words = (
        *("fit", "--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}"),
        *options(llava, tmp_path, f"--trainer.default_root_dir={tmp_path}/run"),
        *("--config", ROOT / "configs/selectors/random.yaml"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml"),
    )
    assert command(*words)[0] == 0
    status, _, told = command(*words, "--data.fraction=0.5")
    assert status == 1
    assert "was trained on other data or another selection" in told


def test_checkpoints_take_a_small_share_of_the_time(tmp_path):
    callback = LastCheckpoint(tmp_path)
    assert callback._train_time_interval.total_seconds() == checkpoint.SECONDS


@pytest.mark.parametrize("block", ["target", "target_lora"])
def test_a_model_in_pieces_learns_as_a_whole_one(block, tiny, llava, tmp_path):
    sharded = (
        *("--config", ROOT / "configs/trainers/fsdp.yaml", "--trainer.accelerator=cpu"),
        *("--trainer.devices=2", "--trainer.precision=32-true"),
    )
    for name, processes in {"whole": TWO, "pieces": sharded}.items():
        model = ("--config", ROOT / f"configs/models/{block}.yaml", f"--model.pretrained={tiny}")
        more = ("--trainer.max_steps=3", f"--trainer.default_root_dir={tmp_path / name}")
        if block == "target_lora":
            more += ("--model.lora.rank=4", "--model.lora.dropout=0")
        status, told = coincide("fit", *options(llava, tmp_path, *model, *more, *processes))
        assert status == 0, told
    left = [load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "pieces")]
    assert left[0].keys() == left[1].keys()
    for name, value in left[0].items():
        torch.testing.assert_close(left[1][name], value, atol=1e-5, rtol=1e-4)

"""Lost if these fail: the same result from two processes as from one, and from two starts."""

import json
import os
import signal
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import torch
from harness import COMMAND
from PIL import Image
from safetensors.torch import load_file
from stages import ROOT, TWO

from coincide_pl.interruption import interruption
from coincide_pl.models import LastCheckpoint, TargetModule, checkpoint
from coincide_pl.models.tiny import tiny_llava
from coincide_pl.signals import SignalsStore


@pytest.fixture
def coincide(runner):
    """Runs the command in processes of its own; returns status and output."""

    def run(*words):
        result = runner(*words)
        return result.status, result.message

    return run


def options(llava, tmp_path, *more):
    return (
        *("--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--data.num_workers=0", "--data.batch_size=8"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *more),
    )


def test_two_processes_choose_as_one_does_and_train_on_it(coincide, tiny, llava, tmp_path):
    for name, processes in {"one": (), "two": TWO}.items():
        run = tmp_path / name
        place = (f"--data.signals={run}/signals", f"--trainer.default_root_dir={run}", *processes)
        reference = (
            *("--config", ROOT / "configs/models/reference.yaml", f"--model.pretrained={tiny}"),
            "--model.layers=[0, 2]",
        )
        status, message = coincide("predict", *options(llava, tmp_path, *reference, *place))
        assert status == 0, message
        coincide_selector = ("--config", ROOT / "configs/selectors/coincide.yaml")
        words = (*coincide_selector, "--data.selector.num_clusters=6", *place)
        status, message = coincide("select", *options(llava, tmp_path, *words))
        assert status == 0, message
        assert message.count("12 of 60 samples") == 1
    one, two = (SignalsStore(tmp_path / name / "signals") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    files = [(tmp_path / name / "selection.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    target = ("--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}")
    words = (*words, *target, "--trainer.max_epochs=2")
    status, message = coincide("fit", *options(llava, tmp_path, *words))
    assert status == 0, message
    assert "used again" in message
    before, after = (load_file(Path(p) / "model.safetensors") for p in (tiny, run / "model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_two_processes_answer_as_one_does(coincide, tiny, llava, tmp_path):
    """In many batches, and in one, of which the second process has none of its own."""
    for batch_size in (8, 60):
        for name, processes in {"one": (), "two": TWO}.items():
            status, message = coincide(
                *("test", "--model=TargetModule", f"--model.pretrained={tiny}", *processes),
                *("--model.max_new_tokens=2", "--data=InstructionData", "--data.test=LlavaJson"),
                *(f"--data.test.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
                *(f"--data.batch_size={batch_size}", "--data.max_length=512"),
                *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
                f"--trainer.default_root_dir={tmp_path}/{name}",
            )
            assert status == 0, message
        for file in ("results.json", "answers.jsonl"):
            one, two = (tmp_path / name / file for name in ("one", "two"))
            assert one.read_text() == two.read_text()
            one.unlink()


def test_two_processes_print_a_mistake_once(llava, tiny, tmp_path):
    """By the command as users have it, which starts itself again for the second one."""
    llava.write_text(llava.read_text().replace('"gpt"', '"robot"', 1))
    words = ("--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}")
    words = (*words, f"--trainer.default_root_dir={tmp_path}/run", *TWO)
    done = subprocess.run(
        [COMMAND, "fit", *options(llava, tmp_path, *words)],
        env={**os.environ, "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "'from' 'robot'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines().count("Seed set to 0") == 1  # nor is a log line there twice


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
    status, _, message = command(*words, f"--trainer.default_root_dir={tmp_path}/whole")
    assert status == 0, message

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
        status, _, message = command(*words, place)
    signal.signal(signal.SIGINT, handler)
    assert status == 1
    assert not (tmp_path / "parts/model").exists()

    def counted(self, batch, batch_idx):
        rows.append(batch.rows.tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TargetModule, "training_step", counted)
    status, _, message = command(*words, place)
    assert status == 0, message
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
    status, _, message = command(*words, "--data.fraction=0.5")
    assert status == 1
    assert "was trained on other data or another selection" in message


CHANGES = {
    "--data.batch_size=4": "data.batch_size was 8, and now is 4",
    "--data.max_length=99": "data.max_length was 2048, and now is 99",
    "--data.seed=1": "data.seed was 0, and now is 1",
    "--trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches was 1, and now is 2",
    "--trainer.precision=bf16-mixed": 'trainer.precision was "32-true", and now is "bf16-mixed"',
    "--trainer.gradient_clip_val=2": "trainer.gradient_clip_val was 1.0, and now is 2",
    "--model.optimizer.lr=1e-3": "model.optimizer.lr was 2e-05, and now is 0.001",
    "--model.optimizer=SGD": 'model.optimizer was "AdamW", and now is "SGD"',
    "--model.scheduler.min_lr_ratio=0.1": "model.scheduler.min_lr_ratio was 0.0, and now is 0.1",
    "--model.freeze=[vision_tower]": 'model.freeze was [], and now is ["vision_tower"]',
    "--model.lora.rank=4": "model.lora was null, and now is {",
    "--model.dtype=bfloat16": 'model.dtype was "float32", and now is "bfloat16"',
    "--model.pretrained=OTHER": "model.pretrained (its digest) was ",
}


def test_a_fit_goes_on_with_what_it_began_with(command, llava, tiny, tmp_path, monkeypatch):
    """Or two trainings would be mixed: other rows, other weights, another course."""
    monkeypatch.setattr(checkpoint, "SECONDS", 1e-9)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    other = tmp_path / "other"
    tiny_llava(
        str(other),
        hidden_size=32,
        vision_hidden_size=32,
        vision_num_layers=2,
        image_size=32,
        seed=1,
    )
    run = tmp_path / "run"
    words = (
        *("fit", "--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}"),
        *options(llava, tmp_path, f"--trainer.default_root_dir={run}"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml", "--trainer.max_steps=4"),
    )
    assert command(*words)[0] == 0
    before = (run / "fit.yaml").read_text()
    for word, said in CHANGES.items():
        status, _, message = command(*words, word.replace("OTHER", str(other)))
        assert status == 1
        assert f"error: {run}: its fit began with other options: " in message
        assert said in message
        assert message.count(" was ") == 1 or "scheduler" not in word
        assert (run / "fit.yaml").read_text() == before  # what is there is still told of rightly
    assert command(*words, "--data.num_workers=1", "--trainer.max_steps=5")[0] == 0
    for image in (llava.parent / "coco").glob("*.png"):
        Image.new("RGB", (20, 20), "red").save(image)
    status, _, message = command(*words, "--trainer.max_steps=6")
    assert (status, "images have changed since its fit began" in message) == (1, True)


def test_no_row_is_left_out_where_a_second_process_comes_in(coincide, llava, tiny, tmp_path):
    """Batches are counted by process, so half as many would be left to each of two."""
    words = (
        *("--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}"),
        *options(llava, tmp_path, f"--trainer.default_root_dir={tmp_path}/run"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml", "--trainer.max_steps=4"),
        *("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=4"),
        *("--trainer.callbacks.save_last=true", f"--trainer.callbacks.dirpath={tmp_path}/run/c"),
    )
    assert coincide("fit", *words)[0] == 0
    status, message = coincide("fit", *words, *TWO, "--trainer.max_steps=-1")
    assert status == 1
    assert (
        "the number of processes (trainer.devices times num_nodes) was 1, and now is 2" in message
    )
    assert message.count("error: ") == 1


def step_of(folder, tiny, name):
    """The change of all weights that one fit has brought."""
    start, end = (load_file(f"{p}/model.safetensors") for p in (tiny, folder / name / "model"))
    return torch.cat([(end[key] - start[key]).flatten().double() for key in sorted(start)])


def test_each_token_counts_the_same_in_a_step(coincide, command, llava, tiny, tmp_path):
    """Or a short answer's token counts more than a long one's, by how batches are cut."""
    items = json.loads(llava.read_text())
    chosen = [item for item in items if "image" in item][:8]
    for number, item in enumerate(chosen):
        del item["conversations"][2:]
        item["conversations"][1]["value"] = "red " * 4**number if number < 4 else "no"
    llava.write_text(json.dumps(chosen))
    words = (
        *("--model=TargetModule", f"--model.pretrained={tiny}", "--model.optimizer=SGD"),
        *("--model.optimizer.lr=1", "--trainer.max_epochs=1", *options(llava, tmp_path)),
    )
    cut = ("--data.batch_size=2", "--trainer.accumulate_grad_batches=4")
    for name, more in {
        "whole": (),
        "cut": cut,
        "old": (*cut, "--model.loss_average=batch"),
    }.items():
        place = f"--trainer.default_root_dir={tmp_path}/{name}"
        status, _, message = command("fit", *words, *more, place)
        assert status == 0, message
    place = f"--trainer.default_root_dir={tmp_path}/two"
    cut = ("--data.batch_size=2", "--trainer.accumulate_grad_batches=2", *TWO)
    status, message = coincide("fit", *words, *cut, place)
    assert status == 0, message
    whole = step_of(tmp_path, tiny, "whole")
    for name in ("cut", "two"):
        other = step_of(tmp_path, tiny, name)
        assert float(torch.cosine_similarity(whole, other, 0)) == pytest.approx(1, abs=1e-5)
        assert float(other.norm() / whole.norm()) == pytest.approx(1, abs=1e-4)
    old = step_of(tmp_path, tiny, "old")
    assert float(torch.cosine_similarity(whole, old, 0)) < 0.95


def test_a_stopped_fit_has_whole_steps_only(command, llava, tiny, tmp_path, monkeypatch):
    """Or the gradients of some batches are lost, and their rows count as trained on."""
    monkeypatch.setattr(checkpoint, "SECONDS", 1e-9)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    step, seen = TargetModule.training_step, []

    def watched(self, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 6:
            interruption.asked = signal.SIGTERM
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TargetModule, "training_step", watched)
    words = (
        *("fit", "--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml"),
        *options(llava, tmp_path, f"--trainer.default_root_dir={tmp_path}/run"),
        "--trainer.accumulate_grad_batches=4",
    )
    assert command(*words)[0] == 128 + signal.SIGTERM
    assert command(*words)[0] == 0
    assert seen == list(range(9))  # 7 batches with images and 2 without


def test_checkpoints_take_a_small_share_of_the_time(tmp_path):
    callback = LastCheckpoint(tmp_path)
    assert callback._train_time_interval.total_seconds() == checkpoint.SECONDS


@pytest.mark.parametrize("block", ["target", "target_lora"])
def test_a_model_in_pieces_learns_as_a_whole_one(coincide, block, tiny, llava, tmp_path):
    sharded = (
        *("--config", ROOT / "configs/trainers/fsdp.yaml", "--trainer.accelerator=cpu"),
        *("--trainer.devices=2", "--trainer.precision=32-true"),
    )
    for name, processes in {"whole": TWO, "pieces": sharded}.items():
        model = ("--config", ROOT / f"configs/models/{block}.yaml", f"--model.pretrained={tiny}")
        more = ("--trainer.max_steps=3", f"--trainer.default_root_dir={tmp_path / name}")
        if block == "target_lora":
            more += ("--model.lora.rank=4", "--model.lora.dropout=0")
        if (block, name) == ("target_lora", "pieces"):  # what is left is whole all the same
            more += ("--trainer.strategy.save_distributed_checkpoint=true",)
        status, message = coincide("fit", *options(llava, tmp_path, *model, *processes, *more))
        assert status == 0, message
    left = [load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "pieces")]
    assert left[0].keys() == left[1].keys()
    for name, value in left[0].items():
        torch.testing.assert_close(left[1][name], value, atol=1e-5, rtol=1e-4)

"""Lost if these fail: what a fit has learned, as a checkpoint for others."""

import shutil

import torch
from transformers import AutoModelForImageTextToText

from coincide_pl.models.loading import load_model


def start(command, tiny, llava, run, *words):
    status, _, message = command(
        "fit",
        "--config=configs/models/target_lora.yaml",
        f"--model.pretrained={tiny}",
        "--model.lora.rank=4",
        "--model.gradient_checkpointing=false",
        "--data=InstructionData",
        "--data.train=LlavaJson",
        f"--data.train.path={llava}",
        f"--data.cache_dir={run.parent / 'cache'}",
        f"--trainer.default_root_dir={run}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.max_steps=3",
        *words,
    )
    return status, message


def fit(command, tiny, llava, run, *words):
    status, message = start(
        *(command, tiny, llava, run, "--trainer.callbacks=ModelCheckpoint"),
        f"--trainer.callbacks.dirpath={run / 'checkpoints'}",
        "--trainer.callbacks.save_last=true",
        "--trainer.callbacks.every_n_train_steps=3",
        *words,
    )
    assert status == 0, message


def test_a_training_checkpoint_becomes_a_model(command, tiny, llava, tmp_path):
    run = tmp_path / "run"
    fit(command, tiny, llava, run)
    status, _, message = command("export", run, f"--output={tmp_path / 'out'}")
    assert status == 0, message
    ours = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    left = load_model(str(run / "model")).state_dict()
    before = load_model(tiny).state_dict()
    assert ours.keys() == left.keys()
    for name, value in left.items():
        torch.testing.assert_close(ours[name], value)
    assert any(not torch.equal(ours[name], before[name]) for name in before)
    assert (tmp_path / "out" / "processor_config.json").exists()


def test_what_is_no_fit_is_named(command, tiny, llava, tmp_path):
    run = tmp_path / "run"
    status, _, message = command("export", run, f"--output={tmp_path / 'out'}")
    assert (status, "the directory of a fit?" in message) == (1, True)
    (tmp_path / "ended/model").mkdir(parents=True)
    for name in ("fit.yaml", "model/config.json"):
        (tmp_path / "ended" / name).write_text("{}")
    status, _, message = command("export", tmp_path / "ended", f"--output={tmp_path / 'out'}")
    left = f"the fit has ended, and what it left is in {tmp_path / 'ended/model'}"
    assert (status, left in message) == (1, True)
    fit(command, tiny, llava, run)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    status, _, message = command("export", run, f"--output={tmp_path / 'out'}")
    assert status == 1
    assert f"{last}: not a training checkpoint" in message
    torch.save({"state_dict": {}}, last)
    status, _, message = command("export", run, f"--output={tmp_path / 'out'}")
    assert status == 1
    assert "is not a checkpoint of this fit (the training checkpoint lacks " in message
    assert not (tmp_path / "out").exists()


def test_small_steps_are_not_rounded_away(command, tiny, llava, tmp_path):
    run = tmp_path / "run"
    fit(command, tiny, llava, run, "--trainer.precision=bf16-mixed", "--model.dtype=bfloat16")
    before, after = (load_model(str(p)).state_dict() for p in (tiny, run / "model"))
    name = "model.multi_modal_projector.linear_1.weight"  # learns at 2e-5
    moved = (after[name] - before[name].bfloat16().float()).abs()
    assert float((moved > 1e-6).float().mean()) > 0.9


def test_a_finished_fit_is_not_trained_over(command, tiny, llava, tmp_path):
    run = tmp_path / "run"
    fit(command, tiny, llava, run)
    left, config = (run / "model/model.safetensors").read_bytes(), (run / "fit.yaml").read_bytes()
    status, message = start(command, tiny, llava, run, "--data.seed=5")
    assert status == 1
    assert f"error: {run / 'model'}: the model of a finished fit is there; name another" in message
    assert (run / "model/model.safetensors").read_bytes() == left
    assert (run / "fit.yaml").read_bytes() == config
    shutil.rmtree(run / "model")
    place = f"--trainer.callbacks.dirpath={run / 'checkpoints'}"
    status, message = start(command, tiny, llava, run, "--trainer.callbacks=ModelCheckpoint", place)
    assert status == 0
    assert f"{run}: the fit begins anew, though training checkpoints of an earlier one" in message
    assert f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'} goes on" in message


def test_the_best_weights_are_exported_where_they_are_asked_for(command, tiny, llava, tmp_path):
    """Or the last state is taken for the best, of which a callback keeps a checkpoint."""
    words = (
        *("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1"),
        *("--trainer.callbacks.monitor=step", "--trainer.callbacks.mode=min"),  # not the last one
        "--trainer.callbacks.filename={step}",
    )
    run = tmp_path / "last"
    status, message = start(
        command, tiny, llava, run, *words, f"--trainer.callbacks.dirpath={run}/best"
    )
    assert status == 0, message
    assert f"{run / 'model'}: the weights after the last step; the best by step are" in message
    (best,) = (run / "best").glob("*.ckpt")
    assert best.name == "step=1.ckpt"
    exported = tmp_path / "exported"
    assert command("export", run, f"--output={exported}", f"--checkpoint={best}")[0] == 0
    run = tmp_path / "best"
    more = (f"--trainer.callbacks.dirpath={run}/best", "--trainer.callbacks+=ExportModel")
    status, message = start(
        command, tiny, llava, run, *words, *more, "--trainer.callbacks.weights=best"
    )
    assert status == 0, message
    assert "the best weights by step, of " in message
    wanted = load_model(str(exported)).state_dict()
    for name, value in load_model(str(run / "model")).state_dict().items():
        torch.testing.assert_close(value, wanted[name])
    status, message = start(
        *(command, tiny, llava, tmp_path / "none", "--trainer.callbacks=ExportModel"),
        "--trainer.callbacks.weights=best",
    )
    assert (status, "needs a ModelCheckpoint with a monitor" in message) == (1, True)

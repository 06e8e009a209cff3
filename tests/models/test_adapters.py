"""Lost if these fail: adapters that PEFT's users and servers load, and the way back to a model."""

import json
import runpy
import shlex
import shutil
import sys
from importlib import import_module

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_export import fit, start
from torch.distributed.checkpoint import save

from coincide_pl.evaluation.inputs import Inputs
from coincide_pl.models.loading import checkpoint_fingerprint, load_model

FORM = "--trainer.callbacks.form="


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(4, 24)[None]).logits


def same_weights(one, other):
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """A place for one fit that several tests look at."""
    return tmp_path_factory.mktemp("fits") / "run"


@pytest.fixture
def run(finished, command, tiny, llava):
    """A fit that left its model, and its adapters beside it."""
    if not finished.exists():
        fit(command, tiny, llava, finished, "--trainer.callbacks+=ExportModel", f"{FORM}both")
    return finished


@pytest.mark.filterwarnings("ignore::FutureWarning")  # between PEFT and transformers
def test_peft_reads_what_a_fit_has_left(run, tiny, command, tmp_path):
    model, adapters = run / "model", run / "model/adapters"
    assert sorted(path.name for path in adapters.glob("adapter*")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    base = load_model(tiny)
    before = logits(base)
    after = logits(PeftModel.from_pretrained(base, adapters))
    torch.testing.assert_close(after, logits(load_model(str(model))), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after, before)
    trained = load_file(adapters / "adapter_model.safetensors")
    assert any("multi_modal_projector" in name for name in trained)
    assert Inputs.load(run).trained == checkpoint_fingerprint(str(model))

    for form, folder in (("both", "adapters"), ("adapters", ".")):
        out = tmp_path / form
        assert command("export", run, f"--output={out}", f"--form={form}")[0] == 0
        again = load_file(out / folder / "adapter_model.safetensors")
        assert again.keys() == trained.keys()
        assert all(torch.equal(again[name], trained[name]) for name in trained)
        assert (out / "config.json").exists() == (form == "both")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_and_their_base_become_a_model(run, command, llava, tmp_path):
    adapters, whole = run / "model/adapters", tmp_path / "whole"
    status, message = start(command, adapters, llava, tmp_path / "run")
    advice = f"`coincide export {adapters} --output=MODEL` folds them into their base"
    assert (status, advice in message) == (2, True)
    assert command("export", adapters, f"--output={whole}")[0] == 0
    assert same_weights(whole, run / "model")
    assert (whole / "processor_config.json").exists()

    moved = shutil.copytree(adapters, tmp_path / "moved")
    config = json.loads((moved / "adapter_config.json").read_text())
    for base, line in ((None, "does not say base_model"), ("/gone", "/gone: no such checkpoint")):
        config["base_model_name_or_path"] = base
        (moved / "adapter_config.json").write_text(json.dumps(config))
        status, _, message = command("export", moved, f"--output={tmp_path / 'none'}")
        assert (status, line in message) == (1, True)
    (moved / "adapter_model.safetensors").unlink()
    (moved / "adapter_model.bin").write_bytes(b"")
    status, _, message = command("export", moved, f"--output={tmp_path / 'none'}")
    assert (status, "save them as safetensors" in message) == (1, True)


def test_adapters_alone_are_what_a_fit_leaves_where_that_is_asked_for(
    command, tiny, llava, tmp_path
):
    run, words = tmp_path / "alone", ("--trainer.callbacks=ExportModel", f"{FORM}adapters")
    status, message = start(command, tiny, llava, run, *words)
    assert status == 0, message
    assert not list((run / "model").glob("model*"))
    assert Inputs.load(run).trained == "unknown"  # a test is of the model that they are folded into
    status, message = start(command, tiny, llava, run, *words)
    assert (status, "the model of a finished fit is there" in message) == (1, True)
    status, message = start(
        command, tiny, llava, tmp_path / "none", *words, "--model.lora=null", "--model.freeze=null"
    )
    assert (status, "form: adapters needs adapters, and model.lora" in message) == (1, True)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:.*found in sys.modules")
def test_a_checkpoint_in_pieces_names_what_puts_it_together(run, command, tmp_path, monkeypatch):
    """Or a fit with FSDP or DeepSpeed that was stopped is lost."""
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    pieces = tmp_path / "last pieces.ckpt"
    out = f"--output={tmp_path / 'out'}"
    save({"state_dict": state}, checkpoint_id=pieces, no_dist=True)
    status, _, message = command("export", run, out, f"--checkpoint={pieces}")
    assert status == 1
    _, converter, _, option, _ = message.split("`")
    monkeypatch.setattr(sys, "argv", shlex.split(converter)[2:])
    runpy.run_module(sys.argv[0], run_name="__main__")
    assert command("export", run, out, *shlex.split(option))[0] == 0
    assert same_weights(tmp_path / "out", run / "model")

    (pieces / "latest").write_text("global_step3")
    message = command("export", run, out, f"--checkpoint={pieces}")[2]
    code = shlex.split(message.split("`")[1])[2]
    line, _, call = code.partition("; ")
    _, module, _, name, *_ = line.split()
    assert (callable(getattr(import_module(module), name)), str(pieces) in call) == (True, True)
    status, _, message = command("export", run, out, f"--checkpoint={tmp_path}")
    assert (status, "it is neither FSDP's nor DeepSpeed's" in message) == (1, True)

"""Lost if these fail: the documented commands, each alone and one after another."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from coincide_pl.reporting.tracking.log_file import records
from coincide_pl.selection import Selection
from coincide_pl.signals import SignalsStore

ROOT = Path(__file__).parents[1]
CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def llava_options(llava, tmp_path):
    return (
        *("--config", ROOT / "configs/data/llava.yaml"),
        f"--data.train.path={llava}",
        f"--data.cache_dir={tmp_path}/cache",
        *("--data.num_workers=0", "--data.batch_size=8", "--data.max_length=512"),
    )


def test_the_whole_path(command, tiny, llava, tmp_path):
    run = tmp_path / "run"
    data = llava_options(llava, tmp_path)
    status, _, message = command(
        *("predict", "--config", ROOT / "configs/models/reference.yaml", *data, *CPU),
        *(f"--model.pretrained={tiny}", "--model.layers=[0, 2]"),
        *(f"--data.signals={tmp_path}/signals", "--trainer.logger=false"),
        f"--trainer.default_root_dir={tmp_path}/signals",
    )
    assert (status, "error" in message) == (0, False), message
    assert SignalsStore(tmp_path / "signals")["activations"].shape == (60, 2 * 2 * 32)

    choose = (
        *("--config", ROOT / "configs/selectors/coincide.yaml"),
        *("--data.selector.num_clusters=6", f"--data.signals={tmp_path}/signals"),
    )
    place = f"--trainer.default_root_dir={run}"
    status, _, message = command("select", *data, *choose, *CPU, place, "--trainer.logger=false")
    assert status == 0, message
    selection = Selection.load(run / "selection.safetensors")
    assert len(set(selection.indices.tolist())) == 12
    first = (run / "selection.safetensors").read_bytes()

    fit = (
        *("fit", "--config", ROOT / "configs/models/target.yaml", *data, *choose, *CPU, place),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml"),
        *("--config", ROOT / "configs/loggers/wandb.yaml", f"--model.pretrained={tiny}"),
        *("--trainer.log_every_n_steps=1", "--trainer.max_epochs=10", "--model.optimizer.lr=0.02"),
    )
    status, _, message = command(*fit)
    assert status == 0, message
    assert "as asked for, used again" in message
    assert (run / "selection.safetensors").read_bytes() == first
    before = load_file(f"{tiny}/model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    assert set(before) == set(after)
    assert any((before[name] != after[name]).any() for name in before)

    status, out, message = command(
        *("test", "--config", ROOT / "configs/models/target.yaml", *data, *CPU, place),
        *("--config", ROOT / "configs/loggers/wandb.yaml", f"--model.pretrained={run}/model"),
        *("--data.test=LlavaJson", f"--data.test.path={llava}", "--model.max_new_tokens=4"),
    )
    assert status == 0, message
    results = json.loads((run / "results.json").read_text())
    assert results["scores"]["mean"] > 0
    assert results["counts"] == {"coco": 30, "text": 10, "vg": 20}
    assert set(results["scores"]) == {"coco", "text", "vg", "mean"}

    answers = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert len({answer["id"] for answer in answers}) == len(answers) == 60
    scored = [answer["outcome"] for answer in answers if answer["task"] == "coco"]
    assert np.mean(scored) == pytest.approx(results["scores"]["coco"])

    whole = tmp_path / "whole"
    shutil.copytree(run, whole, ignore=shutil.ignore_patterns("model", "checkpoints", "wandb"))
    everything = {"class_path": "All", "init_args": {}}
    size = selection.pool_size
    made_from = {"data": selection.made_from["data"]}
    Selection(np.arange(size), size, everything, made_from).save(whole / "selection.safetensors")
    (whole / "inputs.json").unlink()  # it notes the selection that was trained on
    status, out, message = command("compare", run, whole, f"--output={tmp_path}/comparison")
    assert status == 0, message
    assert "relative" in out
    assert "signals predict" in out
    for end in ("csv", "md", "tex", "png"):
        assert (tmp_path / f"comparison/comparison.{end}").stat().st_size > 50
    stages = (run / "stages.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in stages] == ["select", "fit", "test"]
    fitted, tested = (read_offline(run, f"run {stage}") for stage in ("fit", "test"))
    config = fitted["config"]
    assert config["fingerprints"] == {
        "selection": selection.fingerprint,
        **selection.made_from,
        "model": config["fingerprints"]["model"],
    }
    noted = json.loads((run / "inputs.json").read_text())
    assert noted.pop("trained") == results["model"]
    assert noted.pop("selection") == selection.fingerprint
    assert config["inputs"] == noted
    assert noted == {
        "model": config["fingerprints"]["model"],
        "signals": {f"{tmp_path}/signals": selection.made_from["signals"]},
    }
    assert config["selection"] == selection.description
    assert fitted["summary"]["costs"]["whole"]
    assert set(config["versions"]) >= {"coincide-pl", "lightning", "torch", "transformers"}
    assert "git" in config
    assert "num_clusters" in config["fit_config"]
    assert "train/loss" in fitted["history"]
    assert fitted["group"] == tmp_path.name
    (artifact,) = [one for one in fitted["artifacts"] if one.type == "selection"]
    assert artifact.name == f"selection-{selection.fingerprint[:12]}"
    assert json.loads(artifact.metadata) == selection.description
    assert [entry.path for entry in artifact.manifest.contents] == ["selection.safetensors"]
    summary = tested["summary"]
    assert summary["tested"] == results
    assert summary["tested"]["model"] == fitted["summary"]["trained"]
    (file,) = (run / "wandb").glob("offline-run-*/files/outcomes.jsonl")
    outcomes = [json.loads(line) for line in file.read_text().splitlines()]
    assert outcomes == [{name: one[name] for name in ("task", "outcome")} for one in answers]
    assert summary["test/coco"] == pytest.approx(results["scores"]["coco"])
    (table,) = (run / "wandb").glob("offline-run-*/files/media/table/results_*.json")
    content = json.loads(table.read_text())
    assert dict(zip(content["columns"], content["data"][0], strict=True)) == pytest.approx(
        results["scores"]
    )


def test_a_benchmark(command, tiny, llava, tmp_path):
    folder = llava.parent
    questions = [
        {"question_id": i, "image": f"coco/{i}.png", "text": "a dog?", "category": "popular"}
        for i in range(0, 10, 2)
    ]
    labels = [{"question_id": i, "label": ("yes", "no")[i % 4 // 2]} for i in range(10)]
    for name, items in (("questions", questions), ("labels", labels)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, items)))
    words = [
        *("test", "--config", ROOT / "configs/models/target.yaml", *CPU),
        *(f"--model.pretrained={tiny}", "--model.max_new_tokens=2", "--data=InstructionData"),
        *("--data.test=QuestionFile", f"--data.test.path={folder}/questions.jsonl"),
        *(f"--data.test.answers={folder}/labels.jsonl", f"--data.cache_dir={tmp_path}/cache"),
        *("--trainer.callbacks=Evaluate", "--trainer.callbacks.metric=YesNo"),
        f"--trainer.default_root_dir={tmp_path}/run",
    ]
    status, _, message = command(*words)
    assert status == 0, message
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["metric"] == "YesNo"
    assert results["counts"] == {"popular": 5}
    # What a model with random weights says has no "no" in it: all is taken for yes.
    assert results["details"]["popular"] == pytest.approx(
        {"accuracy": 0.6, "precision": 0.6, "recall": 1, "f1": 0.75, "yes_ratio": 1}
    )
    assert not list((tmp_path / "run").glob(".answers*"))
    words[-2] = "--trainer.callbacks.metric=YesOrNo"
    status, _, message = command(*words)
    assert status == 2
    assert "YesNo" in message


def read_offline(run, name):
    """What an offline run of W&B holds: group, config, summary, names in the history, artifacts."""
    found = {"config": {}, "summary": {}, "history": set(), "artifacts": []}
    for path in (run / "wandb").glob("offline-run-*/run-*.wandb"):
        log = list(records(path))
        (head,) = [record.run for record in log if record.HasField("run")]
        if head.display_name != name:
            continue
        found["group"] = head.run_group
        for record in log:
            for kind in ("config", "summary"):
                for item in getattr(record, kind).update:
                    found[kind][item.key or item.nested_key[0]] = json.loads(item.value_json)
            found["history"] |= {i.key or i.nested_key[0] for i in record.history.item}
            if record.HasField("artifact"):
                found["artifacts"].append(record.artifact)
            elif record.request.HasField("log_artifact"):
                found["artifacts"].append(record.request.log_artifact.artifact)
        for item in head.config.update:
            found["config"].setdefault(item.key, json.loads(item.value_json))
    return found


def test_select_again_when_something_changes(command, llava, tmp_path):
    data = llava_options(llava, tmp_path)
    words = (*("select", *data, *CPU), f"--trainer.default_root_dir={tmp_path}/run")
    words = (*words, "--config", ROOT / "configs/selectors/random.yaml")
    path = tmp_path / "run" / "selection.safetensors"
    message = {}
    chosen = {}
    for name, more in {
        "first": (),
        "same": (),
        "fraction": ("--data.fraction=0.5",),
        "seed": ("--data.fraction=0.5", "--data.selector.seed=1"),
        "selector": ("--config", ROOT / "configs/selectors/all.yaml"),
    }.items():
        status, _, message[name] = command(*words, *more)
        assert status == 0, message[name]
        chosen[name] = Selection.load(path).indices
    items = json.loads(llava.read_text())
    items[0]["conversations"][1]["value"] = "changed"
    llava.write_text(json.dumps(items))
    status, _, message["data"] = command(*words)
    again = {name for name, text in message.items() if "selecting again" in text}
    assert again == {"fraction", "seed", "selector", "data"}
    assert "used again" in message["same"]
    sizes = {name: len(indices) for name, indices in chosen.items()}
    assert sizes == {"first": 12, "same": 12, "fraction": 30, "seed": 30, "selector": 60}
    np.testing.assert_array_equal(chosen["first"], chosen["same"])
    assert set(chosen["fraction"]) != set(chosen["seed"])
    path.write_bytes(path.read_bytes()[:-3])
    status, _, text = command(*words)
    assert (status, "damaged one: selecting again" in text) == (0, True)


BLOCKS = {
    "fit": [
        [
            "models/target.yaml",
            "data/llava.yaml",
            "selectors/random.yaml",
            "trainers/one_epoch.yaml",
        ],
        ["models/target_lora.yaml", "data/llava.yaml", "selectors/all.yaml", "loggers/wandb.yaml"],
        ["models/target.yaml", "data/easy_vqa.yaml"],
    ],
    "predict": [
        ["models/reference.yaml", "data/llava.yaml"],
        ["models/reference.yaml", "data/chat.yaml"],
    ],
}


@pytest.mark.parametrize(
    ("verb", "blocks"), [(verb, names) for verb, sets in BLOCKS.items() for names in sets]
)
def test_building_blocks_run(command, tiny, llava, tmp_path, verb, blocks):
    words = [verb]
    for name in blocks:
        words += ["--config", ROOT / "configs" / name]
    words.append(f"--model.pretrained={tiny}")
    if {"data/llava.yaml", "data/chat.yaml"} & {*blocks}:  # one format has the other's keys
        words += [f"--data.train.path={llava}", "--data.num_workers=0"]
    if verb == "predict":
        words += ["--model.layers=[0, 1]", f"--data.signals={tmp_path}/signals"]
    status, _, message = command(
        *(*words, *CPU, f"--data.cache_dir={tmp_path}/cache", "--data.batch_size=2"),
        *("--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}"),
    )
    assert status == 0, message


@pytest.mark.parametrize(
    ("verb", "file"),
    [
        ("fit", "align"),
        ("fit", "target"),
        ("test", "test"),
        ("predict", "predict"),
        ("select", "select"),
    ],
)
def test_print_config_comes_back_as_it_was(command, tiny, llava, tmp_path, verb, file):
    words = [verb, "--config", ROOT / f"experiments/easy_vqa/{file}.yaml"]
    words += [f"--trainer.default_root_dir={tmp_path}"]
    if verb != "select":
        words.append(f"--model.pretrained={tiny}")
    if file == "align":
        words.append(f"--data.train.path={llava}")
    status, out, message = command(*words, "--print_config")
    assert (status, message) == (0, "")
    (tmp_path / "printed.yaml").write_text(out)
    status, again, message = command(verb, "--config", tmp_path / "printed.yaml", "--print_config")
    assert (status, message) == (0, "")
    assert yaml.safe_load(again) == yaml.safe_load(out)
    assert yaml.safe_load(out)["data"]["class_path"].endswith("InstructionData")


def test_null_is_an_option_s_value_too(command):
    words = ("--data=InstructionData", "--config", ROOT / "configs/selectors/coincide.yaml")
    status, out, message = command(
        "select", *words, "--data.selector.exclude_above=null", "--print_config"
    )
    assert (status, message) == (0, "")
    given = yaml.safe_load(out)["data"]["init_args"]["selector"]["init_args"]
    assert (given["exclude_above"], given["num_clusters"]) == (None, 10000)


def test_help_documents_the_options(command):
    status, out, _ = command("fit", "--data.help", "InstructionData")
    assert status == 0
    assert "share of the data to choose" in out
    status, out, _ = command("select", "--help")
    assert status == 0
    assert "--data" in out
    status, out, _ = command("create-tiny-llava", "--help")
    assert status == 0
    assert "width of the text decoder" in out

"""Lost if these fail: what the READMEs say to type works when it is typed, from top to bottom."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from readmes import CPU, NOT_RUN, OWN_DATA, ROOT, SMALL, Shell, blocks
from transformers import LlamaConfig, LlamaForCausalLM

from coincide_pl.models.conversion.llava_checkpoints import read_weights
from coincide_pl.models.loading import save_checkpoint
from coincide_pl.models.tiny import tiny_clip, tiny_tokenizer

PARITY = ROOT / "tests/data/parity"
READMES = sorted(
    path
    for pattern in ("*.md", "*/README.md", "*/*/README.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith((".", "runs")) for part in path.relative_to(ROOT).parts)
    and not path.parent.is_symlink()
)
CHOICE = (
    "coincide fit --config models/target --config selectors/{1} $DATA --model.pretrained=TARGET "
    "--data.signals=signals --trainer.max_epochs=1 --trainer.default_root_dir=runs/{0} {2}"
)
ANSWERS = (
    "coincide test --config models/target --data.test=QuestionFile "
    "--data.test.path=llava_pope_test.jsonl --data.test.answers=pope_answers.jsonl "
    "--data.test.image_folder=val2014 --model.pretrained=runs/{0}/model "
    "--trainer.default_root_dir=runs/{0}"
)


@pytest.fixture
def place(tmp_path, models, llava_writer, monkeypatch):
    """A folder with all that the READMEs speak of: data, models, finished runs."""
    place = tmp_path / "place"
    shutil.copytree(models, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path))
    llava_writer(place / "images", 60).rename("mix.json")
    shutil.copy("mix.json", "tasks.json")
    questions(place)
    originals(place)
    to_assemble(place)
    for name in ("experiments", "coincide_pl", "configs"):
        (place / name).symlink_to(ROOT / name)
    return place


def questions(place):
    """A question file and its answers, as POPE's."""
    shutil.copytree(place / "images/coco", place / "val2014")
    asked = [{"question_id": i, "image": f"{i}.png", "text": "Is it red?"} for i in range(4)]
    truths = [{"question_id": i, "label": ("yes", "no")[i % 2]} for i in range(4)]
    for name, items in (("llava_pope_test.jsonl", asked), ("pope_answers.jsonl", truths)):
        (place / name).write_text("".join(json.dumps(item) + "\n" for item in items))


def to_assemble(place):
    """A language model and a vision tower by the names that they are published under."""
    tokenizer = tiny_tokenizer(400)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    text = place / "HuggingFaceTB/SmolLM2-135M-Instruct"
    save_checkpoint(text, LlamaForCausalLM(config), tokenizer)
    tower = place / "google/siglip-base-patch16-224"
    tiny_clip(str(tower), width=16, num_heads=2, image_size=32)


def originals(place):
    """Original checkpoints by the names that they are published under."""
    llava, tinyllava = PARITY / "llava15", PARITY / "tinyllava"
    shutil.copytree(llava / "llava-v1.5-tiny", place / "llava-v1.5-7b")
    shutil.copytree(llava / "clip", place / "clip")
    shutil.copytree(llava / "clip", place / "openai/clip-vit-large-patch14-336")
    shutil.copytree(llava / "llava-v1.5-tiny", place / "vicuna-7b-v1.5")
    shutil.copytree(llava / "llava-v1.5-tiny", place / "llava-v1.5-7b-lora")
    for name in ("vicuna-7b-v1.5", "llava-v1.5-7b-lora"):
        for file in (place / name).glob("pytorch_model*"):
            file.unlink()
    weights = read_weights(llava / "llava-v1.5-tiny")
    projector = {
        f"base_model.model.{name}": weights.pop(name) for name in [*weights] if "projector" in name
    }
    torch.save(weights, place / "vicuna-7b-v1.5/pytorch_model.bin")
    adapters = place / "llava-v1.5-7b-lora"
    down, up = torch.randn(4, 64), torch.randn(128, 4)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_{}.weight"
    torch.save({name.format("A"): down, name.format("B"): up}, adapters / "adapter_model.bin")
    (adapters / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    torch.save(projector, adapters / "non_lora_trainables.bin")
    shutil.copy(llava / "stage1/mm_projector.bin", place)
    shutil.copytree(tinyllava / "tinyllava-2.0b-tiny", place / "TinyLLaVA-2.0B")
    shutil.copytree(tinyllava / "siglip-tiny", place / "siglip-tiny")


def runs_to_compare(shell):
    """Three small runs that `compare` can compare."""
    for name, *selector in (
        ("coincide-0", "coincide", "--data.selector.num_clusters=3"),
        ("random-0", "random", ""),
        ("all", "all", ""),
    ):
        for line in (CHOICE, ANSWERS):
            shell.run(line.format(name, *selector))
        # So short a training teaches nothing, and there is nothing relative to that.
        results = Path(f"runs/{name}/results.json")
        found = json.loads(results.read_text())
        found["scores"] = dict.fromkeys(found["scores"], 0.5)
        results.write_text(json.dumps(found))


BEFORE = {"coincide compare runs/": runs_to_compare}
"""What must have been done before a command, where its README does not do it."""


def follow(readme, shell, names):
    """Does what a README says, in the current folder.

    Args:
        readme: its path.
        shell: runs its commands.
        names: what its Python may use.
    """
    for block in blocks(readme):
        print(f"{readme}, line {block.line}")  # pytest shows it where a test fails
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.text)
        elif block.language == "python" and block.mark.startswith(NOT_RUN):
            compile(block.text, str(readme), "exec")
        elif block.language == "inline" or block.mark.startswith(NOT_RUN):
            for line in block.lines:
                shell.parse(line)
        elif block.language == "sh":
            for line in block.lines:
                for start, prepare in BEFORE.items():
                    if line.startswith(start):
                        prepare(shell)
                shell.run(line)
        elif block.language == "python":
            exec(block.text, names)
        elif block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict)
        else:
            assert block.language == "text", "neither run nor marked"
            assert not re.search("^(coincide|lightning|make|pip|python) ", block.text, re.MULTILINE)


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning"
)  # Lightning's, in Python
@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme(readme, place, command):
    random = np.random.default_rng(0)
    names = {
        "features": random.normal(size=(60, 10)).astype(np.float32),
        "labels": np.arange(60) % 3,
        "centroids": random.normal(size=(3, 10)).astype(np.float32),
    }
    shell = Shell(command, SMALL, CPU)
    if readme.is_relative_to(ROOT / "coincide_pl"):
        for block in blocks(ROOT / "README.md"):  # what is read first is done first
            if (block.heading, block.language) == (OWN_DATA, "sh"):
                for line in block.lines:
                    shell.run(line)
    follow(readme, shell, names)


@pytest.mark.parametrize(
    "text",
    [
        "    ls",
        "    coincide confgs",
        "```\ncoincide configs\n```",
        "```text\ncoincide configs\n```",
        "```python\nimport nothing_like_that\n```",
        "```yaml\na: [\n```",
        "Try `coincide select --data.fractio=0.2`.",
        f"<!-- {NOT_RUN}hours -->\n\n    coincide fit --config models/targt",
        f"<!-- {NOT_RUN}hours -->\n\n    python experiments/costs.py --tagret=x",
        f"<!-- {NOT_RUN}hours -->\n\n    make demmo",
    ],
)
def test_a_readme_that_is_wrong_fails(text, tmp_path, command):
    (tmp_path / "README.md").write_text(f"{text}\n")
    with pytest.raises(BaseException):  # noqa: B017, PT011
        follow(tmp_path / "README.md", Shell(command, {}, ()), {})

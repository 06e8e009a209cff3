"""Lost if these fail: answers scored by a rule of one's own."""

import json
import re
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "coincide_pl/README.md"


@pytest.fixture
def mentions(tmp_path, monkeypatch):
    """The README's metric in the current folder."""
    section = README.read_text().split("## A metric of your own\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    file = tmp_path / "my_metrics.py"
    file.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as a script has it
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
    yield file
    sys.modules.pop("my_metrics", None)


@pytest.fixture
def words(tiny, llava, tmp_path):
    """A test of the tiny model, scored by the README's metric."""
    return [
        *("test", "--model=TargetModule", f"--model.pretrained={tiny}", "--model.max_new_tokens=2"),
        *("--data=InstructionData", "--data.test=LlavaJson", f"--data.test.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path}/run"),
        *("--trainer.callbacks=Evaluate", "--trainer.callbacks.metric=my_metrics.Mentions"),
    ]


def test_the_readmes_example_goes_through_the_command(mentions, words, command, tmp_path):
    status, _, said = command(*words, "--trainer.callbacks.metric.ignore_case=false")
    assert status == 0, said
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["metric"] == "Mentions"
    lines = [json.loads(line) for line in (tmp_path / "run/answers.jsonl").read_text().splitlines()]
    assert len(lines) == sum(results["counts"].values()) == 60
    for line in lines:
        assert line["outcome"] == float(line["truth"] in line["answer"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("def outcome", "def outcom"),
            "error: trainer.callbacks.metric: my_metrics.Mentions lacks the method outcome\n",
        ),
        (
            ("        super().__init__()\n", ""),
            "error: my_metrics.Mentions: its __init__ must call super().__init__()\n",
        ),
    ],
)
def test_what_a_metric_lacks_is_named(mentions, words, command, change, line):
    mentions.write_text(mentions.read_text().replace(*change))
    status, _, said = command(*words)
    assert (status, line in said, "Traceback" in said) == (2, True, False)

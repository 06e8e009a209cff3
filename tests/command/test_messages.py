"""Lost if these fail: the cause of a mistake in options, in one line, whatever jsonargparse says.

Each case brings one complaint of jsonargparse's about; `RULES` that no case needs are an error.
"""

import re

import pytest

from coincide_pl.command import messages

FIT = ("fit", "--data=InstructionData", "--data.train=LlavaJson", "--data.train.path=x")
TARGET = ("--model=TargetModule", "--model.pretrained=x")
LR = ("--model.optimizer=AdamW", "--model.optimizer.lr=x")
CASES = [
    ((*FIT, "--data.fracton=0.2"), "data.fracton: no such option; did you mean fraction?"),
    (
        ("fit", "--trainer.acelerator=cpu"),
        "--trainer.acelerator=cpu: no such option; did you mean accelerator",
    ),
    (("create-tiny-llava", "--output=x", "--hiden_size=3"), "did you mean hidden_size"),
    (("fit", "--model.optimizer.help", "AdamW"), "--model=TargetModule"),
    ((*FIT, "--data.selector=Randm"), "data.selector: no class is called 'Randm'; did you mean"),
    ((*FIT, "--data.selector=nowhere.Mine"), "data.selector: nowhere.Mine: No module named"),
    ((*FIT, "--data.selector=PIL.Image.Image"), "not correspond to a subclass of Selector"),
    ((*FIT, "--data.selector.seed=8"), "data.selector: name the class before its arguments"),
    ((*FIT, "--data.train.on_error=halt"), "data.train.on_error: 'halt' is not one of stop, skip"),
    (
        (*FIT, "--data.train.on_error=leave_out"),
        "data.train.on_error: leave_out is called skip now",
    ),
    ((*FIT, "--data.fraction=many"), "data.fraction: many is not a float"),
    ((*FIT, "--trainer.max_epochs=many"), "trainer.max_epochs: many is not an int"),
    (("create-tiny-llava", "--output=x", "--hidden_size=[]"), "hidden_size: [] is not an int"),
    ((*FIT, *TARGET, *LR), "model.optimizer.lr: x is not a float"),
    (("fit", "--trainer=null"), "trainer: null is neither a group of options nor a config file"),
    (("fit",), "missing: --model (here, or in a --config)"),
    (("compare",), "missing: runs"),
    ((*FIT, "--data.selector=Less"), "missing: --data.selector.targets (here,"),
    ((*FIT, "--config", "less.yaml"), "missing: --data.selector.targets (here,"),
    (
        (*FIT, "--data.selector=PerSource", "--data.selector.selector=Coincide"),
        "missing: --data.selector.selector.num_clusters (here,",
    ),
    ((*FIT, "--config", "unnamed.yaml"), "data.selector: name the class of its arguments"),
    ((*FIT, "--config", "wrong.yaml"), "trainer.foo: no such option"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("trainer: {foo: 3}")
    (tmp_path / "less.yaml").write_text("data: {init_args: {selector: {class_path: Less}}}")
    (tmp_path / "unnamed.yaml").write_text("data: {init_args: {selector: {init_args: {k: 3}}}}")


@pytest.mark.parametrize(("words", "line"), CASES)
def test_each_complaint_is_one_line(command, words, line):
    status, _, message = command(*words)
    assert status == 2, message
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert line in message
    assert "<class" not in message


def test_each_rule_is_needed(command, monkeypatch):
    used = set()
    for pattern, say in messages.RULES.items():

        def noted(complaint, *groups, say=say, pattern=pattern):
            used.add(pattern)
            return say(complaint, *groups)

        monkeypatch.setitem(messages.RULES, pattern, noted)
    for words, _ in CASES:
        command(*words)
    assert used == {*messages.RULES}


def test_the_whole_name_of_an_option_is_found_where_it_was_set(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data: {init_args: {train: {class_path: X, init_args: {folder: y}}}}")
    words = ["--model.optimizer.lr=1", f"--config={path}", "--other.lr", "3"]
    assert messages.whole_name("folder", words) == "data.train.folder"
    assert messages.whole_name("optimizer.lr", words) == "model.optimizer.lr"
    assert messages.whole_name("lr", words) == "lr"  # two are set
    assert messages.whole_name("nothing", words) == "nothing"


def test_only_this_file_reads_the_library_s_prose():
    text = (messages.Path(messages.__file__).parent / "parser.py").read_text()
    assert not re.search(r"re\.(search|match|find)", text)

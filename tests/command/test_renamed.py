"""Lost if these fail: who used an older version learns in one line how things are called now."""

from pathlib import Path

import pytest
import yaml

from coincide_pl.command import renamed
from coincide_pl.command.verbs import BY_NAME

ROOT = Path(__file__).parents[2]
DATA = ("--data=InstructionData", "--data.train=LlavaJson", "--data.train.path=x")
REFERENCE = ("--model=ReferenceModule", "--model.pretrained=x")
TARGET = ("--model=TargetModule", "--model.pretrained=x")


@pytest.mark.parametrize("old", renamed.VERBS)
def test_verbs(command, old):
    status, _, message = command(old, "--output=x")
    assert (status, message) == (2, f"error: {old} is called {renamed.VERBS[old]} now\n")
    assert renamed.VERBS[old] in BY_NAME


CASES = [
    (("predict", *REFERENCE), "model", "attention", "attn_implementation"),
    (("fit", *TARGET), "model", "attention", "attn_implementation"),
    (("fit", *TARGET, "--model.scheduler=CosineWithWarmup"), "model.scheduler", "warmup", ""),
    (("fit", *TARGET, "--model.scheduler=CosineWithWarmup"), "model.scheduler", "floor", ""),
    (("select",), "data", "token_budget", "max_tokens"),
    (("select",), "data", "eval_token_budget", "eval_max_tokens"),
    (("fit", *TARGET), "data.train", "unusable", "on_error"),
    (("select", "--data.selector=Coincide"), "data.selector", "density_with_self", ""),
    (("select", "--data.selector=Coincide"), "data.selector", "memory", "memory_gib"),
    (("select", "--data.selector=Perplexity"), "data.selector", "part", "keep"),
]


@pytest.mark.parametrize(("words", "owner", "old", "new"), CASES)
def test_options_on_the_command_line_and_in_a_config(command, tmp_path, words, owner, old, new):
    new = new or renamed.OPTIONS[old]
    verb, *others = words
    line = f"error: {owner}.{old} is called {owner}.{new} now\n"
    status, _, message = command(verb, *DATA, *others, f"--{owner}.{old}=1")
    assert (status, message) == (2, line)

    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(nested([*DATA, *others], f"{owner}.{old}")))
    status, _, message = command(verb, *DATA, *others, "--config", path)
    assert (status, message) == (2, line)

    status, _, message = command(verb, *DATA, *others, f"--{owner}.{new}=1", "--print_config")
    assert f"{new} is called" not in message
    assert "no such option" not in message


def nested(words, option):
    """A config that names the classes that the words name, and sets one option to 1."""
    content = {}
    for word in [*words, f"--{option}=1"]:
        name, _, value = word.removeprefix("--").partition("=")
        *outer, last = name.replace(".", ".init_args.").split(".")
        place = content
        for key in outer:
            place = place.setdefault(key, {})
        if value[:1].isupper():
            place.setdefault(last, {})["class_path"] = value
        else:
            place[last] = value
    return content


def test_an_option_that_became_another_thing():
    line = renamed.option("model.tanh")
    assert line is not None
    assert line.startswith("model.tanh is an argument of the signal now")

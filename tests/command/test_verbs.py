"""Lost if these fail: a help that names every verb, and every verb that the help names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import coincide_pl
from coincide_pl.command.cli import StageParser, Trainer
from coincide_pl.command.functions import function_of
from coincide_pl.command.verbs import BY_NAME, VERBS

ROOT = Path(__file__).parents[2]
LIGHT = """
import sys
from coincide_pl.command.main import main
try:
    main()
finally:
    print(*{"torch", "lightning", "transformers", "jsonargparse"} & set(sys.modules))
"""


def test_dispatch_help_and_readme_agree(command):
    status, out, _ = command("--help")
    assert status == 0
    listed = re.findall(r"^  ([a-z-]+)  +\S", out, re.M)
    assert listed == [verb.name for verb in VERBS] == list(BY_NAME)
    table = (ROOT / "README.md").read_text().partition("| verb |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \| ", table, re.M)
    documented = [name for row in rows for name in re.findall("`([a-z-]+)`", row)]
    assert sorted(documented) == sorted(BY_NAME)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_can_be_run(verb):
    if not verb.function:
        assert callable(getattr(Trainer, verb.name))
        return
    function = function_of(verb)
    parser = StageParser()
    options = parser.add_function_arguments(function, fail_untyped=False)
    assert {name for name, _ in verb.operands} <= {*options}
    assert (function.__doc__ or "").strip()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_mistyped_verb_is_suggested(command, verb):
    name = verb.name
    for typed in (name[:-2] + name[-1] + name[-2], name + "s", name[0] + name[2:]):
        if typed not in BY_NAME:
            status, _, message = command(typed)
            assert status == 2
            assert name in message.partition("did you mean ")[2]


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_load_no_library(word):
    done = subprocess.run([sys.executable, "-c", LIGHT, word], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {*done.stdout.splitlines()[-1].split()} <= {"jsonargparse"}


def test_version(command):
    status, out, _ = command("--version")
    assert status == 0
    assert out.startswith(f"coincide_pl {coincide_pl.__version__} (torch ")


def test_what_stands_before_the_verb_is_a_mistake(command):
    status, _, message = command("--config", "x.yaml", "fit")
    assert (status, message) == (
        2,
        "error: --config: put the verb first, as in `coincide fit --config …`\n",
    )
    status, _, message = command()
    assert status == 2
    assert all(name in message for name in BY_NAME)

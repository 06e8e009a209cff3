"""Lost if these fail: blocks of configs/ combine in any order, from any folder, under options."""

import subprocess
import sys
from itertools import combinations, permutations
from pathlib import Path

import pytest
import yaml

from coincide_pl.command.cli import Command
from coincide_pl.command.configs import blocks, configs_first, found, shipped
from coincide_pl.command.verbs import BY_NAME

ROOT = Path(__file__).parents[1]
ONE_OF_EACH = ("data/llava", "models/target", "selectors/coincide", "trainers/ddp", "loggers/wandb")


@pytest.fixture(scope="module")
def parser():
    """The command's own, built once."""

    class ParsesNothing(Command):
        def parse_arguments(self, parser, args):
            kept.append(parser)
            raise InterruptedError

    kept = []
    with pytest.raises(InterruptedError):
        ParsesNothing(BY_NAME["fit"], [])
    return kept[0]


@pytest.fixture
def parsed(parser, capsys):
    """What `fit --print_config` prints of words of a command line."""

    def parse(*words):
        with pytest.raises(SystemExit) as end:
            parser.parse_args([*configs_first(words), "--print_config"])
        out, said = capsys.readouterr()
        assert (end.value.code, said) == (0, "")
        return yaml.safe_load(out)

    return parse


def leaves(tree, path=()):
    """Options and values of a block, nested ones by their path."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for key, value in tree.items() for k, v in leaves(value, (*path, key)).items()}


@pytest.mark.parametrize("pair", list(combinations(ONE_OF_EACH, 2)), ids=" ".join)
def test_two_kinds_of_blocks_stand_in_any_order(parsed, pair):
    first, second = (
        parsed(*(f"--config={name}" for name in order)) for order in (pair, pair[::-1])
    )
    assert first == second


def test_all_kinds_stand_in_any_order(parsed):
    orders = list(permutations(ONE_OF_EACH))[::17]
    first, *others = [parsed(*(f"--config={name}" for name in order)) for order in orders]
    assert len(others) > 5
    assert all(other == first for other in others)
    given = first["data"]["init_args"]
    assert given["train"]["class_path"].endswith("LlavaJson")
    assert given["selector"]["init_args"]["num_clusters"] == 10000
    assert first["model"]["class_path"].endswith("TargetModule")
    assert first["trainer"]["strategy"] == "ddp"
    assert first["trainer"]["logger"]["class_path"].endswith("WandbLogger")


def test_no_two_blocks_of_different_kinds_disagree():
    said = {
        name: leaves(yaml.safe_load((shipped() / f"{name}.yaml").read_text())) for name in blocks()
    }
    for one, other in combinations(said, 2):
        if one.split("/")[0] == other.split("/")[0]:
            continue
        for key in said[one].keys() & said[other].keys():
            assert said[one][key] == said[other][key], (one, other, key)


@pytest.mark.parametrize("name", blocks())
def test_each_block_alone_is_understood(parsed, name):
    assert parsed(f"--config={name}")["data"]["class_path"].endswith("InstructionData")


def test_an_option_wins_wherever_it_stands(parsed):
    for words in (
        ("--data.fraction=0.5", "--config", "selectors/random", "--config", "data/llava"),
        ("-c", "data/llava", "--data.fraction", "0.5", "-c=selectors/random"),
        ("--config=selectors/random", "--data.fraction=0.5"),
    ):
        assert parsed(*words)["data"]["init_args"]["fraction"] == 0.5


def test_a_later_block_of_a_kind_wins(parsed):
    last = parsed("--config=selectors/coincide", "--config=selectors/random")
    assert last["data"]["init_args"]["selector"]["init_args"] == {"seed": 0}


@pytest.mark.parametrize(
    "name",
    [
        *("selectors/coincide", "selectors/coincide.yaml"),
        *("configs/selectors/coincide", "configs/selectors/coincide.yaml"),
    ],
)
def test_a_block_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = ROOT / "configs/selectors/coincide.yaml"
    assert Path(found(name)).samefile(block)
    mine = tmp_path / "configs/selectors/coincide.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("data: {init_args: {fraction: 0.1}}\n")
    assert Path(found(name)).samefile(mine)


def test_words_keep_their_order_but_for_configs():
    block = found("data/llava")
    words = [
        "compare",
        "a",
        "b",
        "--output=x",
        "--config",
        "data/llava",
        "c",
        "-c=data/llava",
        "-c",
    ]
    assert configs_first(words) == [
        *("compare", "a", "b", f"--config={block}", f"--config={block}", "--output=x", "c", "-c")
    ]
    assert configs_first(["--config", "{a: 1}"]) == ["--config={a: 1}"]


def test_configs_are_listed_and_printed(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = command("configs")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == blocks()
    assert all(len(line.split()) > 1 for line in out.splitlines())
    status, out, _ = command("configs", "selectors/coincide")
    assert out == (ROOT / "configs/selectors/coincide.yaml").read_text()
    status, _, said = command("configs", "selectors/coincid")
    assert status == 1
    assert "did you mean selectors/coincide" in said


def test_a_list_may_be_cut_short(tmp_path):
    words = [sys.executable, "-m", "coincide_pl", "configs"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        listing.stdout.close()  # as `head` does
        assert listing.stderr.read() == b""


def test_a_run_can_be_found_by_its_options(command, tiny, llava, tmp_path):
    status, _, said = command(
        *(
            "fit",
            "--config",
            "models/target",
            "--config",
            "selectors/random",
            "--config=data/llava",
        ),
        *(f"--model.pretrained={tiny}", f"--data.train.path={llava}", "--data.num_workers=0"),
        *(f"--data.cache_dir={tmp_path}/cache", f"--trainer.default_root_dir={tmp_path}/run"),
        *("--trainer.max_steps=1", "--trainer.accelerator=cpu", "--data.fraction=0.5"),
        *("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}/log"),
    )
    assert status == 0, said
    (written,) = tmp_path.glob("log/**/hparams.yaml")
    logged = yaml.safe_load(written.read_text())
    assert logged["data.fraction"] == 0.5
    assert logged["data.selector"].endswith("Random")
    assert logged["model.optimizer.lr"] == 2e-5

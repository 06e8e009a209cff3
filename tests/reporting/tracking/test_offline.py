"""Lost if these fail: runs compared from W&B's files alone, whole, cut or damaged."""

import csv
import shutil
import sys
import zlib
from pathlib import Path

import pytest
import wandb

from coincide_pl.command.main import main
from coincide_pl.errors import CoincideError
from coincide_pl.reporting.compare import load
from coincide_pl.reporting.rows import compared
from coincide_pl.reporting.tracking import log_file as log_file_module
from coincide_pl.reporting.tracking import offline
from coincide_pl.reporting.tracking.callback import resumed
from coincide_pl.reporting.tracking.log_file import BLOCK, HEAD, entries, read_log

CONFIGS = Path(__file__).parents[3] / "configs"
CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
WANDB = ("--config", CONFIGS / "loggers/wandb.yaml")
TEXTS = ("csv", "md", "tex")


@pytest.fixture(scope="module")
def made(tiny, llava_writer, tmp_path_factory):
    """Four runs, fitted and tested as a user does it; their directories, and the common options."""
    root = tmp_path_factory.mktemp("made")
    llava = llava_writer(root / "data", 60)
    data = (
        *("--config", CONFIGS / "data/llava.yaml", f"--data.train.path={llava}"),
        *(f"--data.cache_dir={root}/cache", "--data.batch_size=8", "--data.num_workers=0", *CPU),
    )
    test = ("--data.test=LlavaJson", f"--data.test.path={llava}", "--model.max_new_tokens=4")
    target = ("--config", CONFIGS / "models/target.yaml", *WANDB, "--trainer.log_every_n_steps=1")
    train = ("--model.optimizer.lr=0.02", "--trainer.max_epochs=-1", "--trainer.max_steps=20")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")

        def run(verb, place, *words):
            words = [verb, *data, *words, f"--trainer.default_root_dir={place}"]
            patch.setattr(sys, "argv", ["coincide", *map(str, words)])
            main()

        signals = (f"--data.signals={root}/signals", "--trainer.logger=false")
        reference = ("--config", CONFIGS / "models/reference.yaml", f"--model.pretrained={tiny}")
        run("predict", root / "signals", *reference, "--model.layers=[0, 2]", *signals)
        for name, selector, seed, more in (
            ("coincide", "coincide", 0, ("--data.selector.num_clusters=6", signals[0])),
            ("random0", "random", 0, ()),
            ("random1", "random", 1, ("--data.selector.seed=1",)),
            ("all", "all", 0, ()),
        ):
            place = root / "runs" / name
            selects = ("--config", CONFIGS / f"selectors/{selector}.yaml", *more)
            start = (f"--model.pretrained={tiny}", f"--seed_everything={seed}")
            run("fit", place, *target, *train, *selects, *start)
            run("test", place, *target, *test, f"--model.pretrained={place}/model")
    return sorted((root / "runs").iterdir()), (*data, *target, *train)


@pytest.fixture
def copied(made, tmp_path):
    """The runs' folders of W&B as another machine has them: all in one, and nothing else."""
    folder = tmp_path / "copied"
    for run in made[0]:
        for own in (run / "wandb").glob("offline-run-*"):
            shutil.copytree(own, folder / own.name)
    return folder


def log_of(folder, run, stage):
    """The log of a run's stage."""
    logs = {
        path: read_log(path, {"directory", f"{stage}_config"}, set()) for path in all_of(folder)
    }
    (path,) = [p for p, x in logs.items() if len(x.config) == 2 and run in x.config["directory"]]
    return path


def all_of(folder):
    return sorted(folder.glob("offline-run-*/*.wandb"))


def test_the_same_tables_from_either(made, copied, command, tmp_path):
    ways = {
        "directories": made[0],
        "wandb folders": [run / "wandb" for run in made[0]],
        "a folder of all": [copied],
        "folders of each": sorted(copied.iterdir()),
        "files": [*all_of(copied), all_of(copied)[0]],
        "both": [made[0][0], copied],
        "mixed": [*made[0][:2], *(run / "wandb" for run in made[0][2:])],
    }
    texts = {}
    for way, paths in ways.items():
        status, out, said = command("compare", *paths, f"--output={tmp_path}/{way}")
        if way == "both":
            assert (status, "the same choice and seed as" in said) == (1, True)
            continue
        assert (status, "left out" in out, "no difference" in out) == (0, False, False), said
        texts[way] = [(tmp_path / way / f"comparison.{end}").read_text() for end in TEXTS]
    expected = texts["directories"]
    assert {way for way, text in texts.items() if text != expected} == set()
    rows = list(csv.DictReader(expected[0].splitlines()))
    assert [row["run"] for row in rows] == ["Coincide 20 %", "Random 20 %", "All"]
    assert [row["seeds"] for row in rows] == ["1", "2", "1"]
    assert float(rows[2]["mean"]) > 0
    assert rows[0]["vs Random low"]
    assert float(rows[0]["signals predict (s)"]) > 0
    assert {row["all costs known"] for row in rows} == {"true"}


def test_logs_without_the_files_beside_them(made, copied, command, tmp_path):
    whole = compared(load([copied])[0])
    for folder in copied.iterdir():
        shutil.rmtree(folder / "files")
    status, out, _ = command("compare", copied, f"--output={tmp_path}/out")
    assert status == 0
    (line,) = [line for line in out.splitlines() if "no difference to Random" in line]
    assert line.endswith("files/outcomes.jsonl and 3 more")
    rows = compared(load([copied])[0])
    assert (whole[0].difference is None, rows[0].difference) == (False, None)
    for row, full in zip(rows, whole, strict=True):
        assert (row.name, row.seconds, row.whole) == (full.name, full.seconds, full.whole)
        assert {t: x.tolist() for t, x in row.scores.items()} == {
            t: x.tolist() for t, x in full.scores.items()
        }


def test_outcomes_of_another_test_are_refused(copied):
    path = log_of(copied, "random0", "test").parent / "files/outcomes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    with pytest.raises(CoincideError, match=r"outcomes.jsonl: not of the test"):
        compared(load([copied])[0])
    path.write_text("".join(lines)[:-9])
    with pytest.raises(CoincideError, match=r"outcomes.jsonl: damaged"):
        compared(load([copied])[0])


def chunks(content):
    """Where the chunks of a log begin."""
    at = 7
    while at < len(content):
        if BLOCK - at % BLOCK < HEAD.size:
            at += BLOCK - at % BLOCK
        yield at
        at += HEAD.size + HEAD.unpack_from(content, at)[1]


def up_to_the_end(path):
    """Entries of a log, and what is said where it ends too soon."""
    found = []
    try:
        found += (one for one in entries(path))
    except CoincideError as error:
        return found, str(error)
    return found, None


def test_a_log_is_read_up_to_its_cut_or_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=tmp_path, config={"long": "x" * 2 * BLOCK, "b": 1})
    run.summary["c"] = {"d": 0.1}
    run.finish()
    wandb.teardown()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    log = read_log(path, {"b"}, {"c"})
    assert (log.config, log.summary, log.ended) == ({"b": 1}, {"c": {"d": 0.1}}, True)
    assert (log.damage, log.start > 0) == (None, True)
    content = path.read_bytes()
    found, said = up_to_the_end(path)
    begins = list(chunks(content))
    assert (said, len(begins) > len(found)) == (None, True)  # an entry lies in several blocks
    for at in {0, 3, 7, BLOCK, len(content) - 1, *begins, *(b + 3 for b in begins)}:
        path.write_bytes(content[:at])
        kept = [one for one in found if one[0] <= at]
        read, said = up_to_the_end(path)
        assert read == kept
        between = at in {7, *(end for end, _ in kept)}  # nothing is wrong with what is there
        assert said is None if between else str(path) in said
        assert read_log(path, set(), set()).damage is not None or kept
    for at in {0, 5, *begins, *(b + 4 for b in begins), *(b + 6 for b in begins), 2 * BLOCK + 99}:
        path.write_bytes(content[:at] + bytes([content[at] ^ 5]) + content[at + 1 :])
        read, said = up_to_the_end(path)
        assert read == [one for one in found if one[0] <= at]
        assert str(path) in said
    path.write_bytes(content[: begins[-3]] + bytes(3 * BLOCK))  # what a crash may leave
    assert f"damaged at byte {begins[-3]}" in read_log(path, set(), set()).damage


def test_an_entry_without_end_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file_module, "LARGEST", 3 * BLOCK)
    path = tmp_path / "run-x.wandb"
    with path.open("wb") as file:
        file.write(b":W&B\xe1\xbe\0")
        for i in range(9):
            data = bytes(BLOCK - HEAD.size - (7 if i == 0 else 0))
            kind = b"\3" if i else b"\2"
            file.write(HEAD.pack(zlib.crc32(kind + data), len(data), kind[0]) + data)
    assert f"damaged at byte {3 * BLOCK}" in read_log(path, set(), set()).damage


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_run_that_was_cut_is_left_out_or_used(copied, stage):
    path = log_of(copied, "random1", stage)
    content = path.read_bytes()
    found, left_out = load([copied])
    assert (len(found), left_out) == (4, [])
    seen = set()
    for at in [0, 7, *chunks(content), len(content)]:
        path.write_bytes(content[:at])
        found, left_out = load([copied])
        seen.add(len(found))
        assert len(found) == (3 if left_out else 4)
        assert {run.selector for run in compared(found)[-1].runs} == {"All"}
        assert not left_out or str(path) in "".join(left_out)
    assert seen == {3, 4}


def test_failed_runs(made, tiny, copied, command, tmp_path, monkeypatch):
    """A fit that failed is named, until another one in its directory has done it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "stopping.py").write_text(STOPPING)
    place = tmp_path / "runs/random2"
    fit = (
        *("fit", *made[1], "--config", CONFIGS / "selectors/random.yaml", "--seed_everything=2"),
        *(f"--model.pretrained={tiny}", "--data.selector.seed=2"),
        f"--trainer.default_root_dir={place}",
    )
    status, _, said = command(*fit, "--trainer.callbacks=stopping.Stopping")
    assert (status, "the disk is full" in said) == (1, True)
    (failed,) = all_of(place / "wandb")
    assert read_log(failed, set(), set()).damage is None
    status, out, _ = command("compare", copied, place / "wandb", f"--output={tmp_path}/out")
    assert status == 0
    assert f"left out: {failed}: its fit did not come to its end\n" in out
    assert command(*fit)[0] == 0
    (fitted,) = {*all_of(place / "wandb")} - {failed}
    paths = [str(copied), str(place / "wandb")]
    line = f"{fitted}: no test of what it trained is there"
    assert load(paths)[1] == [line]
    assert load([*paths, str(log_of(copied, "random0", "fit"))])[1] == [line]
    alone = log_of(copied, "random0", "test")
    with pytest.raises(CoincideError, match="no fit of the model that it tested is there"):
        load([str(alone)])


STOPPING = """
import lightning
from coincide_pl.errors import DataError


class Stopping(lightning.Callback):
    def on_train_batch_end(self, *args):
        raise DataError("the disk is full")
"""


def test_what_is_no_run_is_named(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.init(mode="offline", dir=tmp_path / "other", config={"selection": 1}).finish()
    wandb.teardown()
    text = tmp_path / "run-a.wandb"
    text.write_text("no log")
    (tmp_path / "notes.txt").touch()
    for path, said in (
        (tmp_path / "other", "neither of a fit nor of a test"),
        (text, "not a log of W&B"),
        (tmp_path / "notes.txt", "neither the directory of a run nor W&B's files"),
        (tmp_path / "absent", "no such directory or file"),
    ):
        found, left_out = load([str(copied), str(path)])
        assert len(found) == 4
        assert len(left_out) == 1
        assert said in left_out[0]


def test_values_that_are_not_ours(copied, monkeypatch):
    """Another program's names, or another version's."""
    path = log_of(copied, "random1", "fit")
    for name, value in (("selection", 1), ("fit_config", "["), ("inputs", {}), ("trained", [])):

        def changed(log, config, summary, name=name, value=value):
            found = read_log(log, config, summary)
            part = found.summary if name == "trained" else found.config
            if log == path:
                part[name] = value
            return found

        monkeypatch.setattr(offline, "read_log", changed)
        found, left_out = load([str(copied)])
        assert len(found) == 3
        assert len(left_out) == 1
        assert str(path) in left_out[0]


def test_a_fit_that_goes_on_is_one_run(made, monkeypatch, tmp_path):
    """Of W&B: a fit notes its run, and a start that goes on from a checkpoint goes on in it."""
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    place = tmp_path / "run"
    place.mkdir()
    shutil.copy(made[0][0] / ".wandb_id", place)
    assert resumed(place, None) == {}  # there is no checkpoint to go on from
    (place / "checkpoints").mkdir()
    (place / "checkpoints/last.ckpt").touch()
    (fitted,) = made[0][0].glob(f"wandb/offline-run-*-{(place / '.wandb_id').read_text()}")
    assert resumed(place, None) == {"id": fitted.name.rpartition("-")[2], "resume": "allow"}
    assert resumed(place, "given") == {}
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-agent")
    assert resumed(place, None) == {}

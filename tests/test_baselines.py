"""Lost if these fail: every method by one word in a config, and a user's own beside them."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.models.tiny import tiny_clip
from coincide_pl.selection import EL2N, Picks, Pool, Selection, Selector
from coincide_pl.signals import SignalsStore

ROOT = Path(__file__).parents[1]
SMALL = {
    "coincide": 6,
    "distinct": 6,
    "semdedup": 6,
    "self_sup": 6,
    "hierarchical_kmeans": [6, 2],
    "visnec": 6,
    "xmas": 6,
}
"""Methods with clusters, and how many of them for 60 records."""


@pytest.fixture
def options(llava, tmp_path):
    return (
        *("--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--data.num_workers=0", "--data.batch_size=8"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        "--trainer.logger=false",
    )


def test_all_methods_from_two_predicts_and_a_fit(command, options, tiny, tmp_path):
    def run(*words, place):
        status, _, told = command(
            *words[:1], *options, *words[1:], f"--trainer.default_root_dir={tmp_path / place}"
        )
        assert status == 0, told
        return told

    clip, signals, hard = (tmp_path / name for name in ("clip", "signals", "hard/signals"))
    tiny_clip(str(tmp_path / "tiny-clip"), width=32, image_size=32, max_length=24)
    (every,) = re.findall(r"^SIGNALS := (.*)", (ROOT / "experiments/cell.mk").read_text(), re.M)
    run(
        *("predict", "--config", ROOT / "configs/models/reference.yaml"),
        *(f"--model.pretrained={tiny}", "--model.layers=[0, 2]", f"--model.signals={every}"),
        f"--data.signals={signals}",
        place="signals",
    )
    told = run(
        *("predict", "--config", ROOT / "configs/models/clip.yaml"),
        *(f"--model.pretrained={tmp_path}/tiny-clip", f"--data.signals={clip}"),
        place="clip",
    )
    assert "60 conversations were cut at 24 tokens (as many as the model reads)" in told
    scores = SignalsStore(clip)["clip_score"]
    assert np.flatnonzero(scores == -2).tolist() == list(range(5, 60, 6))  # without an image
    run(
        *("fit", "--config", ROOT / "configs/models/self_filter.yaml"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml", f"--model.pretrained={tiny}"),
        *(f"--data.signals={clip}", "--model.score_learning_rate=0.01"),
        place="hard",
    )
    difficulty = SignalsStore(hard)["difficulty"]
    assert difficulty.shape == (60,)
    assert difficulty.std() > 0
    warm, gradients = tmp_path / "warm", tmp_path / "gradients"
    run(
        *("fit", "--config", ROOT / "configs/models/target_lora.yaml"),
        *("--config", ROOT / "configs/trainers/warm_up.yaml", "--trainer.max_epochs=1"),
        *(f"--model.pretrained={tiny}", "--model.lora.rank=4"),
        place="warm",
    )
    run(
        *("predict", "--config", ROOT / "configs/models/gradients.yaml"),
        *(f"--model.pretrained={tiny}", f"--model.warm_up={warm}", f"--data.signals={gradients}"),
        "--model.signals=[gradient,adam_gradient,gradient_norm]",
        place="gradients",
    )
    steps = (4, 6)
    run(
        *("fit", "--config", ROOT / "configs/models/target.yaml", f"--model.pretrained={tiny}"),
        *("--data.selector=All", "--data.fraction=1", "--trainer.callbacks=ModelCheckpoint"),
        *(f"--trainer.callbacks.dirpath={tmp_path}/proxy/checkpoints", "--trainer.max_epochs=1"),
        *("--trainer.callbacks.filename={step}", "--trainer.callbacks.every_n_train_steps=2"),
        *("--trainer.callbacks.auto_insert_metric_name=false", "--trainer.callbacks.save_top_k=-1"),
        place="proxy",
    )
    for step in steps:
        checkpoint = f"--checkpoint={tmp_path}/proxy/checkpoints/{step}.ckpt"
        words = ("export", tmp_path / "proxy", checkpoint, f"--output={tmp_path}/proxy/at-{step}")
        assert command(*words)[0] == 0
        run(
            *("predict", "--config", ROOT / "configs/models/reference.yaml"),
            *(f"--model.pretrained={tmp_path}/proxy/at-{step}", "--model.layers=[0, 1, 2]"),
            *("--model.signals=[cross_attention]", f"--data.signals={tmp_path}/at-{step}"),
            place=f"at-{step}",
        )
    trajectory = ",".join(f"{tmp_path}/at-{step}" for step in steps)
    chosen = {}
    for config in sorted((ROOT / "configs/selectors").glob("*.yaml")):
        if config.stem in ("all", "per_source"):
            continue
        every = f"{signals},{clip},{hard},{gradients}"
        stores = trajectory if config.stem == "xmas" else every
        words = ["select", "--config", config, f"--data.signals=[{stores}]"]
        if config.stem in ("less", "icons"):
            words.append(f"--data.selector.targets=[{gradients}]")
        if config.stem == "presel":
            words.append("--data.selector.features=clip_image")
        if config.stem in SMALL:
            words.append(f"--data.selector.num_clusters={SMALL[config.stem]}")
        run(*words, place=config.stem)
        chosen[config.stem] = Selection.load(tmp_path / config.stem / "selection.safetensors")
    assert len(chosen) == len(list((ROOT / "configs/selectors").glob("*.yaml"))) - 2
    assert "used again" in run(*words, place=config.stem)
    for name, selection in chosen.items():
        assert len(set(selection.indices.tolist())) == 12, name
    prints = {path.name: SignalsStore(path).fingerprint for path in (signals, clip)}
    noted = json.loads((tmp_path / "hard/inputs.json").read_text())
    assert noted["signals"] == {str(clip): prints["clip"]}  # its model reads them, not a selector
    assert chosen["el2n"].made_from["signals"] == prints["signals"]
    assert chosen["clip_score"].made_from["signals"] == prints["clip"]
    both = f"{prints['clip']} + {SignalsStore(hard).fingerprint}"
    assert chosen["self_filter"].made_from["signals"] == both
    assert "signals" not in chosen["random"].made_from
    assert chosen["less"].made_from["targets"] == SignalsStore(gradients).fingerprint
    expected = np.argsort(-difficulty, kind="stable")[0]
    assert chosen["self_filter"].indices[0] == expected

    status, _, told = command(
        *("select", *options, "--data.selector=EL2N", "--data.fraction=0.2"),
        *(f"--data.signals=[{signals},{signals}]", f"--trainer.default_root_dir={tmp_path}/x"),
    )
    assert status == 1
    assert f"'el2n' is in {signals}/el2n and in {signals}/el2n; name one of them" in told


def test_a_signal_that_is_not_there_names_its_command(command, options, tiny, tmp_path):
    words = ("select", *options, f"--trainer.default_root_dir={tmp_path}/x", "--data.fraction=0.2")
    status, _, told = command(*words, "--data.selector=D2Pruning")
    assert status == 1
    assert "data.signals: D2Pruning needs the signals margin, mean_token" in told
    assert "--model.signals='[margin,mean_token]'" in told
    status, _, told = command(
        *("fit", *options, "--config", ROOT / "configs/models/self_filter.yaml"),
        *(f"--model.pretrained={tiny}", f"--trainer.default_root_dir={tmp_path}/x"),
    )
    assert status == 1
    assert "SelfFilterModule needs the signals clip_image" in told
    assert "predict --config models/clip" in told
    status, _, told = command(
        *("predict", *options, "--config", ROOT / "configs/models/reference.yaml"),
        *(f"--model.pretrained={tiny}", "--model.layers=[0]", "--data.signals=[a,b]"),
        f"--trainer.default_root_dir={tmp_path}/x",
    )
    assert status == 1
    assert "predict writes one directory" in told


OWN = '''
from coincide_pl.selection import Picks, Selector

class Longest(Selector):
    """The longest answers."""

    def __init__(self, turn: int = -1):
        """Keeps the turn.

        Args:
            turn: whose text counts.
        """
        self.turn = turn

    def pick(self, pool, count):
        """The `count` longest."""
        lengths = [len(record.turns[self.turn].text) for record in pool.records]
        order = sorted(range(len(pool)), key=lambda row: (-lengths[row], row))
        return Picks(order[:count])
'''


def test_a_users_own_selector(command, options, llava, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as a script has it
    (tmp_path / "my_selectors.py").write_text(OWN)
    config = tmp_path / "own.yaml"
    config.write_text(
        "data:\n  init_args:\n    selector:\n      class_path: my_selectors.Longest\n"
        "      init_args: {turn: 0}\n    fraction: 0.1\n"
    )

    words = ("select", *options, "--config", config, "--trainer.default_root_dir=run")
    status, _, told = command(*words)
    assert status == 0, told
    selection = Selection.load(tmp_path / "run/selection.safetensors")
    own = {"class_path": "my_selectors.Longest", "init_args": {"turn": 0}}
    assert selection.selector == own
    texts = [item["conversations"][0]["value"] for item in json.loads(llava.read_text())]
    expected = sorted(range(60), key=lambda row: (-len(texts[row]), row))[:6]
    assert selection.indices.tolist() == expected


class Twice(Selector):
    def pick(self, pool, count):
        return Picks(np.zeros(count, int))


class Forgetful(Selector):
    def __init__(self, hidden=1):
        pass

    def pick(self, pool, count):
        return Picks(np.arange(count))


def test_a_selector_that_breaks_its_contract_is_named():
    with pytest.raises(SelectionError, match="Twice picked 6 rows where 6 different ones"):
        Twice().select(Pool(range(9)), 6)
    with pytest.raises(SelectionError, match=r"argument 'hidden' must be kept in self\.hidden"):
        Forgetful().select(Pool(range(9)), 6)


class Idle(Selector):
    def __init__(self, share=0.5):
        self.share = share


class Named(Selector):
    signals = ("el2n", "mine")

    def pick(self, pool, count):
        return Picks(np.argsort(pool.signals["mine"])[:count])


def test_a_selector_without_pick_is_named():
    with pytest.raises(SelectionError, match=r"Idle is no selector yet: it has no method pick"):
        Idle()


def test_a_selector_may_name_a_signal_by_the_name_in_its_store():
    """So was it written before signals had classes; the advice stays one that works."""
    signals = {"el2n": np.zeros(5), "mine": np.array([3, 1, 2, 5, 4])}
    assert Named().select(Pool(range(5), signals), 2).indices.tolist() == [1, 2]
    with pytest.raises(SelectionError, match=r"signals='\[el2n\]'` makes el2n; no class .* mine"):
        Named().select(Pool(range(5)), 2)


def test_selections_of_older_versions_are_read_by_todays_names(tmp_path):
    """A selection is not made again because a file moved or an option has a new name."""
    options = {"num_clusters": 4, "density_with_self": True}
    for path in ("coincide.Coincide", "methods.coincide.Coincide", "Coincide"):
        old = {"class_path": f"coincide_pl.selection.{path}", "init_args": options}
        Selection(np.arange(3), 9, old, {"data": "d"}).save(tmp_path / "selection")
        selector = Selection.load(tmp_path / "selection").description["selector"]
        assert selector["class_path"] == "coincide_pl.selection.Coincide"
        assert selector["init_args"] == {"num_clusters": 4, "include_self": True}
    own = {"class_path": "my_selectors.Longest", "init_args": {"part": 1}}
    assert Selection(np.arange(3), 9, own, {}).description["selector"] == own
    assert EL2N().config["class_path"] == "coincide_pl.selection.EL2N"

"""Lost if these fail: one selection, byte for byte, whatever processes and memory made it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
from harness import All, AtCall, Set
from nodes import free_port
from stages import ROOT
from test_endings import PREDICT
from test_kills import OFTEN, STORE

from coincide_pl.data.readers import EasyVQA
from coincide_pl.signals import SignalsStore

EVERY = 128


@dataclass(frozen=True)
class Rank:
    """One process of several that somebody else started, as on a cluster."""

    rank: int
    world: int
    port: int

    def __call__(self):
        os.environ |= {
            "LOCAL_RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "NODE_RANK": "0",
        }


def keep(store):
    """Leaves the shards of a sealed store, which tell what each process wrote."""


KEPT = Set(f"{STORE}:remove_shards", keep)


@dataclass(frozen=True)
class Choice:
    """A subset of easy-VQA, chosen from."""

    data: str
    images: str
    model: str
    folder: object

    def words(self, verb, *more):
        config = {"predict": "models/reference.yaml", "select": "selectors/coincide.yaml"}[verb]
        own = {
            "predict": (f"--model.pretrained={self.model}", "--model.layers=[0, 2]"),
            "select": ("--data.selector.num_clusters=8", "--data.fraction=0.2"),
        }[verb]
        return (
            *(verb, "--config", ROOT / "configs/data/llava.yaml"),
            *("--config", ROOT / "configs" / config, f"--data.train.path={self.data}"),
            *(f"--data.train.image_folder={self.images}", f"--data.cache_dir={self.folder}/cache"),
            *("--data.batch_size=32", "--data.num_workers=0", "--trainer.accelerator=cpu"),
            *("--trainer.logger=false", "--trainer.enable_progress_bar=false"),
            *(f"--data.signals={self.folder}/signals", *own),
            *(f"--trainer.default_root_dir={self.folder}/run", *more),
        )

    def run(self, runner, more=(), world=1):
        for verb in ("predict", "select"):
            words = self.words(verb, *(x for x in more if verb == "select" or "selector" not in x))
            if world > 1:
                words += (f"--trainer.devices={world}", "--trainer.strategy=ddp")
            port = free_port()
            ranks = [
                runner.start(*words, fault=All((KEPT, *[Rank(i, world, port)] * (world > 1))))
                for i in range(world)
            ]
            for one in ranks:
                result = one.end()
                assert result.status == 0, result.message

    @property
    def selection(self):
        return (self.folder / "run/selection.safetensors").read_bytes()


@pytest.fixture(scope="module")
def chosen(runner, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("easy")
    easy = EasyVQA("train")
    easy.write_subset(range(0, 38575, EVERY), folder / "data.json")
    choice = Choice(folder / "data.json", easy.image_root, tiny, folder / "base")
    choice.run(runner)
    return choice


@pytest.mark.parametrize(
    ("more", "world"),
    [
        (("--data.num_workers=2", "--data.selector.memory_gib=1e-4"), 1),
        (("--data.selector.memory_gib=1e-4",), 2),
        ((), 4),
    ],
    ids=["workers, little memory", "two processes, little memory", "four processes"],
)
def test_the_selection_is_the_same(runner, chosen, tmp_path, more, world):
    other = replace(chosen, folder=tmp_path)
    other.run(runner, more, world)
    journals = list((tmp_path / "signals/shards").glob("*.rows"))
    assert sorted(journal.name.partition("-")[0] for journal in journals) == [
        *map(str, range(world))
    ]
    assert all(journal.stat().st_size for journal in journals)
    assert other.selection == chosen.selection


def test_the_selection_is_the_same_after_interruptions(runner, chosen, tmp_path):
    other = replace(chosen, folder=tmp_path)
    for fault in (AtCall(PREDICT, 4), AtCall(PREDICT, 4), AtCall("os:write", 5)):
        result = runner(*other.words("predict"), fault=All((*OFTEN, fault)))
        assert result.status == -signal.SIGKILL, result.message
    other.run(runner)
    assert len(SignalsStore(tmp_path / "signals")["activations"]) == -(-38575 // EVERY)
    assert other.selection == chosen.selection


@pytest.mark.parametrize("size", ["--data.batch_size=7", "--data.eval_max_tokens=900"])
def test_other_batches_agree_to_rounding(runner, chosen, tmp_path, size):
    other = replace(chosen, folder=tmp_path)
    result = runner(*other.words("predict", size))
    assert result.status == 0, result.message
    one, two = (SignalsStore(c.folder / "signals")["activations"] for c in (chosen, other))
    steps = np.spacing(np.maximum(np.abs(one), np.abs(two)).astype(np.float16))
    assert (np.abs(one.astype(np.float64) - two) <= 2 * steps.astype(np.float64) + 2e-6).all()

"""Tiny real things that many tests use.

Libraries are imported where they are used: pytest reads this file also in the process that only
hands out tests, and they take long to load.
"""

import json
import os
import shutil
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; the workers share the cores

import pytest


def pytest_collection_modifyitems(config, items):
    """Leaves out what this machine has not got, and what is long and was not asked for."""
    import torch

    has = {"gpu": torch.cuda.is_available(), "browser": shutil.which("chromium") is not None}
    has["nodes"] = "nodes" in config.option.markexpr
    absent = [i for i in items if any(i.get_closest_marker(n) and not has[n] for n in has)]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]
    # Long files first: at the end no process is to work on one while the others have none left.
    items.sort(key=lambda item: item.path.parent.name not in ("faults", "tests"))


@pytest.fixture(autouse=True)
def _import_path(monkeypatch):
    """The command adds the working directory to the import path; no later test is to find it."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A checkpoint of a tiny LLaVA with random weights."""
    from coincide_pl.models.tiny import tiny_llava

    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llava(str(path), hidden_size=32, vision_hidden_size=32, vision_num_layers=2, image_size=32)
    return str(path)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """REFERENCE with the 24 layers that the paper's has, and TARGET."""
    from coincide_pl.models.tiny import tiny_llava

    folder = tmp_path_factory.mktemp("readme")
    shape = {"hidden_size": 16, "vision_hidden_size": 16, "num_heads": 2, "image_size": 32}
    for name, layers in (("REFERENCE", 24), ("TARGET", 2)):
        tiny_llava(
            str(folder / name), num_layers=layers, vision_num_layers=2, vision_num_heads=2, **shape
        )
    return folder


@pytest.fixture
def llava(tmp_path):
    """A LLaVA-format file of 60 records about 20 images, of two sources, some without image."""
    return write_llava(tmp_path / "data", 60)


@pytest.fixture(scope="session")
def llava_writer():
    """The function that writes such a file, for fixtures that many tests share."""
    return write_llava


def write_llava(folder, count):
    """Writes images and `data.json`."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for source in ("coco", "vg"):
        (folder / source).mkdir(parents=True)
        for i in range(10):
            pixels = random.integers(0, 255, (24 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(folder / source / f"{i}.png")
    items = []
    for i in range(count):
        item = {"id": f"r{i}", "conversations": []}
        for k in range(1 + i % 2):
            item["conversations"] += [
                {"from": "human", "value": f"what is {i} {'and how big ' * (i % 5)}here?"},
                {"from": "gpt", "value": ("red", "a blue circle", "no")[(i + k) % 3]},
            ]
        if i % 6 != 5:
            item["image"] = f"{('coco', 'vg')[i % 2]}/{i % 10}.png"
            item["conversations"][0]["value"] = "<image>\n" + item["conversations"][0]["value"]
        items.append(item)
    path = folder / "data.json"
    path.write_text(json.dumps(items))
    return path


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    """Runs commands in processes of their own, which start at once."""
    from harness import Runner  # with faults

    return Runner(tmp_path_factory.mktemp("output"))


@pytest.fixture
def command(capfd, caplog, monkeypatch, tmp_path):
    """Runs the command in this process; returns its exit status, output and error output."""
    from coincide_pl.command.main import main

    monkeypatch.setenv("WANDB_MODE", "offline")

    def run(*words):
        words = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["coincide", *words])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        written, logged = capfd.readouterr(), caplog.text
        caplog.clear()
        return status, written.out, written.err + logged

    return run

"""Lost if these fail: the whole path in Python, with a plain Trainer and without the command."""

import base64
import io
import json
import os
import runpy
from pathlib import Path

import lightning
import numpy as np
import pytest
from PIL import Image

from coincide_pl import InstructionData, LlavaJson, Random, ReferenceModule, Selection
from coincide_pl.errors import ConfigError
from coincide_pl.reporting.report import report
from coincide_pl.reporting.subset import subset
from coincide_pl.signals import SignalsStore

NOTEBOOK = Path(__file__).parents[1] / "experiments/notebook"
QUIET = {
    **{"logger": False, "enable_progress_bar": False, "enable_model_summary": False},
    **{"accelerator": "cpu", "enable_checkpointing": False},
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture
def data(llava, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(**options):
        return InstructionData(LlavaJson(str(llava)), cache_dir=str(tmp_path / "cache"), **options)

    return make


def test_signals_are_written_without_asking_for_the_writer(data, tiny, tmp_path):
    module = ReferenceModule(tiny, layers=[0, 1])
    lightning.Trainer(**QUIET).predict(module, data(signals="signals"), return_predictions=False)
    assert len(SignalsStore(tmp_path / "signals")["activations"]) == 60
    with pytest.raises(ConfigError, match="one directory"):
        lightning.Trainer(**QUIET).predict(module, data(signals=["a", "b"]))


def test_without_a_directory_predictions_are_returned(data, tiny):
    rows = lightning.Trainer(**QUIET).predict(ReferenceModule(tiny, layers=[0]), data())
    assert sum(len(batch["activations"]) for batch in rows) == 60


def test_a_choice_is_made_looked_at_and_written_out(data, tmp_path):
    chosen = data(selector=Random(seed=1), fraction=0.5, selection="half.safetensors").select()
    assert len(chosen.indices) == 30
    assert chosen.to_pandas()["row"].tolist() == chosen.indices.tolist()
    report(chosen)
    assert "30 of 60 samples" in (tmp_path / "report.html").read_text()
    subset(chosen, "chosen.json")
    ids = [item["id"] for item in json.loads((tmp_path / "chosen.json").read_text())]
    assert ids == [f"r{row}" for row in chosen.indices]


def test_clusters_are_columns_of_the_table():
    labels = np.array([0, 1, 1, 0], np.int32)
    sizes = {"size": np.array([20, 30])}
    chosen = Selection(np.array([3, 1]), 4, {}, {}, sizes, labels=labels)
    assert chosen.to_pandas().to_dict("list") == {
        "row": [3, 1],
        "cluster": [0, 1],
        "size": [20, 30],
    }


def test_what_can_t_be_done_is_said(data):
    with pytest.raises(ConfigError, match="selector"):
        data().select()
    with pytest.raises(ConfigError, match=r"data\.selection: name a file"):
        data(selector=Random()).select()
    with pytest.raises(ConfigError, match="save it first"):
        report(Selection(np.arange(2), 4, {}, {}))


def test_the_script(models, llava_writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REFERENCE", "TARGET"):
        (tmp_path / name).symlink_to(models / name)
    llava_writer(tmp_path / "images", 60).rename("mix.json")
    runpy.run_path(str(NOTEBOOK / "own_data.py"))
    left = {*os.listdir()}
    assert {"selection.safetensors", "clusters.png", "report.html", "model"} <= left


def test_the_notebook(monkeypatch):
    nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
    root = str(NOTEBOOK.parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(NOTEBOOK / "own_data.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    pictures = [
        output.data["image/png"] for output in outputs if "image/png" in output.get("data", "")
    ]
    assert len(pictures) == 2
    for picture in pictures:
        assert (
            len(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").getcolors(1 << 20))
            > 9
        )

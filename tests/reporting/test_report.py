"""Lost if these fail: a page that shows the selection as it is, and runs nothing but its own."""

import json
import re
import subprocess

import numpy as np
import pytest
import yaml

from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import CoincideError
from coincide_pl.reporting import report as page
from coincide_pl.reporting import samples
from coincide_pl.selection import Selection

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028 naïve 猫"


@pytest.fixture
def run(llava, tmp_path):
    """A run's directory with a selection of 20 of 60 records in 4 clusters."""
    items = json.loads(llava.read_text())
    items[0]["conversations"][1]["value"] = HOSTILE
    items[1]["image"] = "coco/missing.png"
    llava.write_text(json.dumps(items))
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    labels = np.arange(60, dtype=np.int32) % 4
    indices = np.arange(0, 60, 3)
    clusters = {
        "size": np.bincount(labels),
        "selected": np.bincount(labels[indices]),
        "transferability": np.array([0.5, 0.6, 0.7, 0.55]),
        "density": np.array([0.9, 0.8, 0.95, 0.85]),
    }
    words = {
        "class_path": "coincide_pl.selection.methods.coincide.Coincide",
        "init_args": {"seed": 1},
    }
    folder = tmp_path / "run"
    Selection(
        indices, 60, words, {"data": records.fingerprint}, clusters, {"imbalance": 1.5}, labels
    ).save(folder / "selection.safetensors")
    reader = {"class_path": "LlavaJson", "init_args": {"path": str(llava)}}
    config = {"data": {"init_args": {"train": reader, "cache_dir": str(tmp_path / "cache")}}}
    (folder / "fit.yaml").write_text(yaml.safe_dump(config))
    return folder


def content(path):
    text = path.read_text()
    return text, json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_what_is_in_it(run, command):
    status, out, _ = command("report", run)
    assert status == 0
    assert f"wrote {run}/report.html" in out
    text, data = content(run / "report.html")
    assert "Coincide: 20 of 60 samples" in text
    assert data["clusters"]["size"] == [15] * 4
    assert data["clusters"]["S"] == [0.5, 0.6, 0.7, 0.55]
    shown = [sample for own in data["samples"] for sample in own]
    assert sorted(row for row, *_ in shown) == list(range(60))
    assert {row for row, _, picked, *_ in shown if picked} == set(range(0, 60, 3))
    first = next(sample for sample in shown if sample[0] == 0)
    assert first[3][1] == ["assistant", HOSTILE]
    assert "alert(1)</script>" not in text
    # Each image once; none for records without one, or whose image is not there.
    assert len(data["images"]) == len(set(data["images"])) == 10
    assert all(uri.startswith("data:image/webp;base64,") for uri in data["images"])
    numbers = {sample[0]: sample[4] for sample in shown}
    assert numbers[1] == numbers[5] == -1
    assert numbers[0] == numbers[10] >= 0
    for title in ("Size of the clusters", "Budgets", "Transferability S", "Density D"):
        assert f"<h3>{title}</h3>" in text
    assert text.count('role="img" aria-label="') == 4
    assert re.search(r"<td>coco</td><td>\d+</td>\s*<td>\d+", text.replace("</td>\n", "</td>"))


def test_the_map_comes_from_the_centroids_that_were_kept(run, tmp_path):
    from safetensors.numpy import save_file

    kept = tmp_path / "signals" / "selection"
    kept.mkdir(parents=True)
    labels = Selection.load(run / "selection.safetensors").labels
    centroids = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    save_file({"labels": labels}, kept / "clusters-1.safetensors")
    for start, part in ((0, centroids[:3]), (3, centroids[3:])):
        save_file({"centroids": part}, kept / f"centroids.{start}-9-1.safetensors")
    save_file(
        {"labels": labels[::-1].copy(), "centroids": -centroids}, kept / "clusters-0.safetensors"
    )
    page.report(str(run), signals=str(tmp_path / "signals"))
    text, _ = content(run / "report.html")
    assert text.count("<circle data-cluster=") == 4
    points = page.project(centroids)
    centered = centroids - centroids.mean(0)
    exact = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(exact.U[:, :2] * exact.S[:2]), atol=1e-4)


def test_without_clusters(run, tmp_path):
    chosen = Selection.load(run / "selection.safetensors")
    words = {"class_path": "coincide_pl.selection.methods.uniform.Random", "init_args": {"seed": 0}}
    Selection(chosen.indices, 60, words, chosen.made_from).save(tmp_path / "random.safetensors")
    page.report(
        str(tmp_path / "random.safetensors"),
        output=str(tmp_path / "random.html"),
        run_config=str(run / "fit.yaml"),
    )
    text, data = content(tmp_path / "random.html")
    assert "Browse samples" in text
    assert data["clusters"] == {"size": [60], "selected": [20]}
    assert len(data["samples"][0]) == 60


def test_it_stays_small(run, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "TEXT_BYTES", 3000)
    monkeypatch.setattr(samples, "IMAGE_BYTES", 2000)
    page.report(str(run))
    _, data = content(run / "report.html")
    assert sum(map(len, data["images"])) < 4000
    texts = ["".join(text for _, text in sample[3]) for own in data["samples"] for sample in own]
    assert max(map(len, texts)) <= 52


def test_what_can_not_be_shown_is_named(run, tmp_path, command):
    with pytest.raises(CoincideError, match="no such selection file"):
        page.report(str(tmp_path / "x"))
    status, _, said = command("report", run, f"--run_config={tmp_path}/no.yaml")
    assert status == 1
    assert said.strip() == f"error: run_config: {tmp_path}/no.yaml is not there; give another"
    (tmp_path / "bad.yaml").write_text("data: 3")
    with pytest.raises(CoincideError, match="names no training data"):
        page.report(str(run), run_config=str(tmp_path / "bad.yaml"))
    hostile = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "x"]}}
    config = {"data": {"init_args": {"train": hostile}}}
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CoincideError, match=r"data\.train"):
        page.report(str(run), run_config=str(tmp_path / "hostile.yaml"))
    items = json.loads((tmp_path / "data/data.json").read_text())
    (tmp_path / "data/data.json").write_text(json.dumps(items[1:]))
    with pytest.raises(CoincideError, match="made from other data"):
        page.report(str(run))


@pytest.mark.browser
def test_in_a_browser(run, tmp_path):
    """Sorts, opens a cluster and searches in headless Chromium, by a script put in the page."""
    page.report(str(run))
    text = (run / "report.html").read_text()
    probe = """
<script>
const said = [];
window.addEventListener("error", (event) => said.push(event.message));
document.addEventListener("securitypolicyviolation", (event) => said.push(event.violatedDirective));
window.addEventListener("load", () => {
  const at = (id) => document.getElementById(id);
  const change = (id, value, kind) => {
    at(id).value = value;
    at(id).dispatchEvent(new Event(kind));
  };
  const first = () => document.querySelector("#clusters tbody tr td").textContent;
  const seen = {};
  change("sort", "S", "change");
  seen.sorted = first();
  document.querySelector("#clusters tbody button").click();
  seen.opened = at("opened").textContent;
  seen.focused = document.activeElement.id;
  seen.cards = document.querySelectorAll(".sample").length;
  seen.picked = document.querySelectorAll(".sample.picked").length;
  seen.pictures = [...document.querySelectorAll(".sample img")].length;
  change("search", "ONERROR naïve", "input");
  seen.found = at("page").textContent;
  document.querySelector("#clusters tbody button").click();
  seen.text = document.querySelector(".sample .assistant").textContent;
  seen.scripts = document.scripts.length;
  seen.wide = document.documentElement.scrollWidth > window.innerWidth;
  change("search", "nowhere to be found", "input");
  seen.none = at("page").textContent;
  seen.errors = said;
  document.title = JSON.stringify(seen);
});
</script>
"""
    (tmp_path / "probe.html").write_text(text.replace("<style>", probe + "<style>", 1))
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={tmp_path}/profile", "--window-size=390,800", "--dump-dom"),
            f"file://{tmp_path}/probe.html",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]
    seen = json.loads(title.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert seen == {
        "sorted": "2",
        "opened": "Cluster 2",
        "focused": "opened",
        "cards": 15,
        "picked": 5,
        "pictures": seen["pictures"],
        "found": "1 clusters with a match, page 1 of 1",
        "text": HOSTILE,
        "scripts": 3,
        "wide": False,
        "none": "0 clusters with a match, page 1 of 1",
        "errors": [],
    }
    assert seen["pictures"] > 0

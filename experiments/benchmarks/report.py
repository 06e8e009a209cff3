"""The report of a selection from a large LLaVA-format file; prints a table.

Records, images, clusters and selection are generated, as many as in LLaVA-1.5's mix; what is
measured is that the report stays small and opens at once.
"""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import yaml
from jsonargparse import auto_cli
from PIL import Image
from safetensors.numpy import save_file

from coincide_pl.data.readers import LlavaJson
from coincide_pl.reporting.report import report
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import Selection

WORDS = "the a red circle is on left of large blue square and how many people are in this image"
OPENED = """<script>addEventListener("load", () => {
document.body.offsetHeight; // lays the page out
document.body.textContent = "opened in " + Math.round(performance.now()) + " ms"; })</script>"""


def measure(
    folder: str = "runs/benchmarks/report", samples: int = 665_298, clusters: int = 10_000
) -> None:
    """Make the report of a large selection, and open it.

    Args:
        folder: folder to generate the data in, about 1 KB a sample.
        samples: number of records, with one to eight questions each.
        clusters: number of clusters of the selection.
    """
    place = Path(folder)
    random = np.random.default_rng(0)
    path = generate(place, samples, random)
    cache = place / "cache"
    records = LlavaJson(str(path)).records(cache)
    weights = 1 / np.arange(1, clusters + 1) ** 0.3
    labels = random.choice(clusters, samples, p=weights / weights.sum()).astype(np.int32)
    indices = random.choice(samples, samples // 5, replace=False)
    columns = {
        "transferability": random.uniform(0.3, 0.7, clusters),
        "density": random.uniform(0.6, 0.95, clusters),
    }
    words = {"class_path": "coincide_pl.selection.methods.coincide.Coincide", "init_args": {}}
    made_from = {"data": records.fingerprint}
    run = place / "run"
    Selection(indices, samples, words, made_from, columns, {}, labels).save(
        run / "selection.safetensors"
    )
    kept = run / "signals" / "selection"
    kept.mkdir(parents=True, exist_ok=True)
    centroids = random.normal(size=(clusters, 2048)).astype(np.float32)
    save_file({"labels": labels, "centroids": centroids}, kept / "clusters-0.safetensors")
    reader = {"class_path": "LlavaJson", "init_args": {"path": str(path)}}
    options = {"train": reader, "cache_dir": str(cache), "signals": str(run / "signals")}
    (run / "fit.yaml").write_text(yaml.safe_dump({"data": {"init_args": options}}))
    begin = time.perf_counter()
    report(str(run))
    spent = time.perf_counter() - begin
    page = run / "report.html"
    header = ["records", "report (s)", "report (MB)", "opened in Chromium (ms)"]
    line = [f"{samples:,}", f"{spent:.0f}", f"{page.stat().st_size / 1e6:.1f}", opened(page)]
    print(Table("Report", header, [line]).markdown(), end="")


def generate(place: Path, samples: int, random: np.random.Generator) -> Path:
    """Writes `data.json` and its images, unless they are there; 300 pictures under many names."""
    path = place / "data.json"
    if path.exists():
        return path
    images = place / "images"
    images.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(300):
        small = Image.fromarray(random.integers(0, 255, (12, 16, 3), np.uint8))
        pictures.append(f"picture{number}.jpg")
        small.resize((640, 480), Image.Resampling.BICUBIC).save(images / pictures[-1])
    names = min(samples, 118_000)
    for number in range(names):
        link = images / f"{number}.jpg"
        link.unlink(missing_ok=True)
        link.symlink_to(pictures[number % len(pictures)])
    vocabulary = np.array(WORDS.split())
    aside = place / ".data.json"
    with aside.open("w") as file:
        for number in range(samples):
            turns = []
            for _ in range(random.integers(1, 6)):
                for sender, most in (("human", 20), ("gpt", 45)):
                    said = " ".join(random.choice(vocabulary, random.integers(1, most)))
                    turns.append({"from": sender, "value": said})
            item = {"id": f"{number:012d}", "conversations": turns}
            if number % 16:
                item["image"] = f"images/{number % names}.jpg"
            file.write(("[" if number == 0 else ",\n") + json.dumps(item))
        file.write("]")
    aside.rename(path)
    return path


def opened(page: Path) -> str:
    """Milliseconds until the page has run and is laid out, in headless Chromium if there is one."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return "-"
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text().replace("</body>", OPENED + "</body>"))
    words = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    words += ["--disable-dev-shm-usage", probe.resolve().as_uri()]
    out = subprocess.run(words, capture_output=True, text=True).stdout
    found = re.search(r"opened in (\d+) ms", out)
    return found[1] if found else "-"


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)

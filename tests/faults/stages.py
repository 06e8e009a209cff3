"""A tiny data set and model, and the commands of the whole path on them."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from coincide_pl.selection import Selection

ROOT = Path(__file__).parents[2]
STAGES = ("predict", "select", "fit", "test", "compare", "report")
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
EPOCHS = 2


def write_data(folder: Path, count: int = 48) -> Path:
    """A LLaVA-format file of records about 8 images, some of them without one."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for i in range(8):
        pixels = random.integers(0, 255, (20 + i, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
    items = []
    for i in range(count):
        question = f"what is {i} {'and how big ' * (i % 5)}here?"
        image = {"image": f"images/{i % 8}.png"} if i % 6 != 5 else {}
        talk = [
            {"from": "human", "value": f"<image>\n{question}" if image else question},
            {"from": "gpt", "value": ("red", "a blue circle", "no")[i % 3]},
        ]
        items.append({"id": f"r{i}", **image, "conversations": talk})
    (folder / "data.json").write_text(json.dumps(items))
    return folder / "data.json"


@dataclass(frozen=True)
class Journey:
    """The path over one data file with one model, its output in a folder.

    Attributes:
        data: LLaVA-format file.
        model: checkpoint, of the reference and of the target.
        folder: where everything is written.
        options: more words for every stage of Lightning's.
    """

    data: Path
    model: str
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def signals(self) -> Path:
        """The store."""
        return self.folder / "signals"

    @property
    def run(self) -> Path:
        """The directory of select, fit and test."""
        return self.folder / "run"

    def words(self, stage: str, *more: object) -> list[str]:
        """The command of a stage."""
        configs = ROOT / "configs"
        data = (
            *("--config", configs / "data/llava.yaml", f"--data.train.path={self.data}"),
            *(f"--data.cache_dir={self.folder}/cache", "--data.num_workers=0"),
            *("--data.batch_size=4", "--data.max_length=256"),
            *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *("--trainer.logger=false", "--trainer.enable_model_summary=false", *self.options),
        )
        place = f"--trainer.default_root_dir={self.run}"
        model = f"--model.pretrained={self.model}"
        choice = (
            *("--config", configs / "selectors/coincide.yaml", "--data.selector.num_clusters=6"),
            *("--data.fraction=0.5", f"--data.signals={self.signals}"),
        )
        words = {
            "predict": (
                *("predict", "--config", configs / "models/reference.yaml", *data, model),
                *("--model.layers=[0, 2]", f"--data.signals={self.signals}"),
                f"--trainer.default_root_dir={self.signals}",
            ),
            "select": ("select", *data, *choice, place),
            "fit": (
                *("fit", "--config", configs / "models/target.yaml", *data, *choice, place),
                *("--config", configs / "trainers/one_epoch.yaml", model),
                f"--trainer.max_epochs={EPOCHS}",
            ),
            "test": (
                *("test", "--config", configs / "models/target.yaml", *data, place),
                *(f"--model.pretrained={self.run}/model", "--data.test=LlavaJson"),
                *(f"--data.test.path={self.data}", "--model.max_new_tokens=2"),
            ),
            "compare": (
                "compare",
                self.run,
                self.folder / "whole",
                f"--output={self.folder}/comparison",
            ),
            "report": ("report", self.run),
        }[stage]
        return [str(word) for word in (*words, *more)]

    def digests(self) -> dict[str, str]:
        """What must come out the same: name and digest of each file."""
        files = {
            "activations": self.signals / "activations.npy",
            "selection": self.run / "selection.safetensors",
            "model": self.run / "model/model.safetensors",
            "results": self.run / "results.json",
            "answers": self.run / "answers.jsonl",
        }
        return {
            name: hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            for name, path in files.items()
            if path.is_file()
        }

    def leftovers(self) -> list[str]:
        """Files that a killed process left."""
        return sorted(str(path) for path in self.folder.rglob(".*.part"))

    def make_whole(self) -> None:
        """A run on all data for `compare`: this one, under another name."""
        whole = self.folder / "whole"
        left_out = shutil.ignore_patterns("model", "checkpoints", "report.html")
        shutil.copytree(self.run, whole, ignore=left_out, dirs_exist_ok=True)
        chosen = Selection.load(whole / "selection.safetensors")
        everything = {"class_path": "All", "init_args": {}}
        data = {"data": chosen.made_from["data"]}
        rows = np.arange(chosen.pool_size)
        Selection(rows, chosen.pool_size, everything, data).save(whole / "selection.safetensors")
        (whole / "inputs.json").unlink()  # it notes the selection that was trained on
        results = json.loads((whole / "results.json").read_text())
        results["scores"] = dict.fromkeys(results["scores"], 1.0)  # it has learned everything
        (whole / "results.json").write_text(json.dumps(results))
        lines = [json.loads(line) for line in (whole / "answers.jsonl").read_text().splitlines()]
        perfect = (json.dumps({**line, "outcome": 1.0}) for line in lines)
        (whole / "answers.jsonl").write_text("\n".join(perfect))

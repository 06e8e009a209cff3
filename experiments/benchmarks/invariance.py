"""What another batch size, token budget or number of threads does to activations and selection.

The same questions of easy-VQA are read by the same model and a fifth of them is chosen; each row of
the table compares with the first.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from coincide_pl.data.readers import EasyVQA
from coincide_pl.models.tiny import tiny_llava
from coincide_pl.selection import Selection
from coincide_pl.signals import SignalsStore

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS = {
    "batches of 64, 1 thread": (1, ("--data.eval_batch_size=64",)),
    "again": (1, ("--data.eval_batch_size=64",)),
    "batches of 16": (1, ("--data.eval_batch_size=16",)),
    "batches of 1": (1, ("--data.eval_batch_size=1",)),
    "4,096 tokens a batch": (1, ("--data.eval_max_tokens=4096",)),
    "2 threads": (2, ("--data.eval_batch_size=64",)),
}


def read_and_choose(
    folder: Path, data: Path, images: Path, model: str, threads: int, size: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Activations and the rows chosen."""
    common = (
        *("--config", CONFIGS / "data/llava.yaml", f"--data.train.path={data}"),
        *(f"--data.train.image_folder={images}", f"--data.cache_dir={folder}/cache"),
        *("--data.num_workers=0", f"--data.signals={folder}/signals", "--trainer.logger=false"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        f"--trainer.default_root_dir={folder}/run",
    )
    reference = ("--config", CONFIGS / "models/reference.yaml", f"--model.pretrained={model}")
    clusters = sum(1 for _ in data.open()) // 66
    for words in (
        ("predict", *common, *reference, "--model.layers=[0, 1]", *size),
        (
            *("select", *common, "--config", CONFIGS / "selectors/coincide.yaml"),
            *(f"--data.selector.num_clusters={clusters}", "--data.fraction=0.2"),
        ),
    ):
        subprocess.run(
            [Path(sys.executable).with_name("coincide"), *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    activations = np.array(SignalsStore(folder / "signals")["activations"])
    return activations, Selection.load(folder / "run/selection.safetensors").indices


def main(pretrained: str | None = None, every: int = 8) -> None:
    """Print the table.

    Args:
        pretrained: the model that reads (default: a tiny one with random weights).
        every: which questions are read: one in so many.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        easy = EasyVQA("train")
        easy.write_subset(range(0, 38575, every), folder / "data.json")
        if pretrained is None:
            pretrained = f"{folder}/tiny"
            tiny_llava(pretrained, hidden_size=64, num_layers=2, vision_num_layers=2)
        print("| setting | entries that differ | most, in float16 steps | selection shared |")
        print("| --- | ---: | ---: | ---: |")
        first: tuple[np.ndarray, np.ndarray] | None = None
        for number, (name, (threads, size)) in enumerate(SETTINGS.items()):
            data = (folder / "data.json", easy.image_root)
            found = read_and_choose(folder / str(number), *data, pretrained, threads, size)
            activations, rows = found
            first = first or found
            steps = np.spacing(np.maximum(np.abs(first[0]), np.abs(activations)))
            apart = np.abs(first[0].astype(np.float64) - activations)
            shared = len(np.intersect1d(first[1], rows)) / len(rows)
            differ = 100 * (apart > 0).mean()
            print(
                f"| {name} | {differ:.2f} % | {(apart / steps).max():.0f} | {100 * shared:.1f} % |"
            )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)

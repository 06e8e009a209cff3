"""Draw an instruction mix of thirteen sources, in LLaVA's format with images.

Shares are as uneven as those of LLaVA-1.5's sources, and as redundant: several samples ask about
one picture, in other words, and some emoji are shown much more often than others. Validation and
test data have as many samples of each source; a second test has the training data's shares.

No picture, and no question without one, is in two splits. Digits and words that are read are in one
split alone. Emoji are shared by all splits, for nobody can name what was never shown; but outside
the training data, `sort` and `count` also show emoji that those do not: `sort` half of the time.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from sources import SOURCES
from subjects import Problem, Subject, belongs


def generate(
    output: str,
    count: int = 12000,
    evaluation: int = 1040,
    proportional: int = 800,
    seed: int = 0,
    jobs: int = 2,
) -> None:
    """Write `train.json`, `val.json`, `test.json`, `test_mix.json`, `sources.json` and `images/`.

    Args:
        output: folder to write them in.
        count: number of training samples, about.
        evaluation: number of samples for validation, and for the balanced test, about.
        proportional: number of samples of the test in the training data's proportions, about.
        seed: seed of everything that is drawn.
        jobs: number of processes.
    """
    folder = Path(output)
    splits = {
        "train": shares(count),
        "val": dict.fromkeys(SOURCES, evaluation // len(SOURCES)),
        "test": dict.fromkeys(SOURCES, evaluation // len(SOURCES)),
        "test_mix": shares(proportional),
    }
    with ProcessPoolExecutor(jobs) as pool:
        for split, sizes in splits.items():
            todo = [(seed, split, source, size) for source, size in sizes.items()]
            items = [one for part in pool.map(partial(write, folder), todo) for one in part]
            random.Random(f"{seed} {split}").shuffle(items)
            (folder / f"{split}.json").write_text(json.dumps(items))
    facts = {
        name: {"share": source.share, "licence": source.licence, "samples": splits["train"][name]}
        for name, source in SOURCES.items()
    }
    (folder / "sources.json").write_text(json.dumps(facts, indent=1) + "\n")


def shares(count: int) -> dict[str, int]:
    """Samples of each source, at least one."""
    return {name: max(1, round(count * one.share / 100)) for name, one in SOURCES.items()}


def subjects(seed: int, split: str, name: str, count: int) -> list[Subject]:
    """What one source asks about in a split."""
    rng, found = random.Random(f"{seed} {split} {name}"), []
    while len(found) < count:
        subject = SOURCES[name].draws(rng, split)
        if belongs(subject, split):
            found.append(subject)
    return found


def write(folder: Path, job: tuple[int, str, str, int]) -> list[dict[str, Any]]:
    """Draws what one source has in a split, and gives its items."""
    seed, split, name, size = job
    source, slug = SOURCES[name], name.lower().replace(" ", "-")
    count = -(-size // source.questions) if split == "train" else size
    shown = subjects(seed, split, name, count)
    rng, items = random.Random(f"{seed} {split} {name} questions"), []
    images = folder / "images" / split / slug
    for at, subject in enumerate(shown):
        if not isinstance(subject, Problem):
            images.mkdir(parents=True, exist_ok=True)
            subject.draw(rng).save(images / f"{at}.png")
    for number in range(size):
        subject = shown[number % count]
        texts = [text for turn in source.asks(rng, subject) for text in turn]
        item: dict[str, Any] = {"id": f"{split}-{slug}-{number}", "source": name}
        if not isinstance(subject, Problem):
            item["image"] = str((images / f"{number % count}.png").relative_to(folder))
            texts[0] = f"<image>\n{texts[0]}"
        item["licence"] = source.licence
        item["facts"] = asdict(subject)
        item["conversations"] = [
            {"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)
        ]
        items.append(item)
    return items


if __name__ == "__main__":
    auto_cli(generate, as_positional=False)

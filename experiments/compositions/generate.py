"""Generate an instruction set of known compositions, in LLaVA's format with images.

A composition is a concept and a skill. Their shares fall like those of LLaVA's mix: concept i and
skill j have 1 / (i j)^skew. Every second composition has little inner variety: its samples are a
few originals, drawn again with things moved by a pixel and another ground. Validation and test data
have as many samples of each composition; there too, those of little variety show the originals.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from questions import SKILLS, Sample, compositions
from scenes import CONCEPTS, draw

ORIGINALS = 32


def generate(
    output: str,
    count: int = 60000,
    evaluation: int = 4000,
    skew: float = 1.2,
    seed: int = 0,
    jobs: int = 2,
) -> None:
    """Write `train.json`, `val.json`, `test.json` and `images/`.

    Args:
        output: folder to write them in.
        count: number of training samples, about.
        evaluation: number of samples for validation, and for the test, about.
        skew: exponent of the shares; the larger, the rarer are the rare compositions.
        seed: seed of everything that is drawn.
        jobs: number of processes.
    """
    folder = Path(output)
    splits = {
        "train": sizes(count, skew),
        "val": sizes(evaluation, 0.0),
        "test": sizes(evaluation, 0.0),
    }
    with ProcessPoolExecutor(jobs) as pool:
        for split, wanted in splits.items():
            todo = [(seed, split, number, size) for number, size in enumerate(wanted)]
            items = [one for part in pool.map(partial(write, folder), todo) for one in part]
            random.Random(f"{seed} {split}").shuffle(items)
            (folder / f"{split}.json").write_text(json.dumps(items))


def sizes(count: int, skew: float) -> list[int]:
    """Number of samples of each composition, at least one."""
    weights = [
        ((1 + list(CONCEPTS).index(concept)) * (1 + list(SKILLS).index(skill))) ** -skew
        for concept, skill in compositions()
    ]
    return [max(1, round(count * weight / sum(weights))) for weight in weights]


def varied(number: int) -> bool:
    """Whether a composition has much inner variety."""
    concept, skill = compositions()[number]
    return (list(CONCEPTS).index(concept) + list(SKILLS).index(skill)) % 2 == 0


def samples(seed: int, split: str, number: int, size: int) -> Iterator[Sample]:
    """Yield the scenes and questions of one composition."""
    concept, skill = compositions()[number]
    if varied(number):
        rng = random.Random(f"{seed} {split} {number}")
        yield from (SKILLS[skill](rng, concept) for _ in range(size))
    else:
        rng = random.Random(f"{seed} originals {number}")
        originals = [SKILLS[skill](rng, concept) for _ in range(ORIGINALS)]
        yield from (originals[i % ORIGINALS] for i in range(size))


def write(folder: Path, job: tuple[int, str, int, int]) -> list[dict[str, Any]]:
    """Draws one composition of a split, and gives its items."""
    seed, split, number, _ = job
    concept, skill = compositions()[number]
    images = folder / "images" / split / f"{concept}-{skill.replace(' ', '-')}"
    images.mkdir(parents=True, exist_ok=True)
    rng, items = random.Random(f"{seed} {split} pictures {number}"), []
    for at, (scene, asked) in enumerate(samples(*job)):
        path = images / f"{at}.png"
        draw(scene, rng.getrandbits(32)).save(path)
        texts = [text for pair in asked for text in pair]
        texts[0] = "<image>\n" + texts[0]
        items.append(
            {
                "id": f"{split}-{images.name}-{at}",
                "image": str(path.relative_to(folder)),
                "skill": skill,
                "composition": images.name,
                "conversations": [
                    {"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)
                ],
            }
        )
    return items


if __name__ == "__main__":
    auto_cli(generate, as_positional=False)

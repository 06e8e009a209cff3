"""Draw captioned pictures of the training data's kinds, for what comes before the instructions.

A vision tower learns from them with a tiny decoder, and the assembled model's projector after that.
A caption tells all that a picture shows. No emoji is drawn that the mix holds out, nor a digit,
word or scene of its validation and test data.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from asking import place, shape_questions
from emoji import SEEN, a
from jsonargparse import auto_cli
from pictures import Bars, Digits, Emoji, Picture, Shape, Table, Thing, Word
from subjects import belongs, draw_bars, draw_digits, draw_shape, draw_table, draw_word

WHAT = ("What is this?", "Name it.", "Describe the picture.")


def captions(
    output: str, count: int = 24000, evaluation: int = 466, seed: int = 1, jobs: int = 2
) -> None:
    """Write `captions.json`, `names.json` and `images/`.

    Args:
        output: folder to write them in.
        count: number of captioned pictures.
        evaluation: number of new drawings of single emoji, to test whether they are recognized.
        seed: seed of everything that is drawn.
        jobs: number of processes.
    """
    folder = Path(output)
    for split, size in (("captions", count), ("names", evaluation)):
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(jobs) as pool:
            item = partial(write, folder, split, seed)
            items = list(pool.map(item, range(size), chunksize=200))
        (folder / f"{split}.json").write_text(json.dumps(items))


def write(folder: Path, split: str, seed: int, number: int) -> dict[str, Any]:
    """Draws one picture, and gives its item."""
    rng = random.Random(f"{seed} {split} {number}")
    if split == "names":
        shown: Picture = Emoji(1, (Thing(SEEN[number % len(SEEN)], 0),))
    else:
        draw = rng.choices([one for one, _ in DRAWS], [weight for _, weight in DRAWS])[0]
        while not belongs(shown := draw(rng), "train"):
            pass
    path = folder / "images" / split / f"{number}.png"
    shown.draw(rng).save(path)
    question, answer = caption(rng, shown)
    return {
        "id": f"{split}-{number}",
        "image": str(path.relative_to(folder)),
        "source": type(shown).__name__,
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": answer},
        ],
    }


def scene(side: int, low: int, high: int, rng: random.Random) -> Emoji:
    """Different emoji, each as often as any other."""
    cells = sorted(rng.sample(range(side * side), rng.randint(low, high)))
    return Emoji(side, tuple(map(Thing, rng.sample(SEEN, len(cells)), cells)))


def caption(rng: random.Random, shown: Picture) -> tuple[str, str]:
    """A question and all that there is to say."""
    question = rng.choice(WHAT)
    match shown:
        case Emoji(side=1):
            return question, shown.names[0]
        case Emoji(side=2):
            return question, ", ".join(f"{a(one.name)} {place(shown, one)}" for one in shown.things)
        case Emoji():
            return question, ", ".join(shown.names)
        case Digits():
            return question, shown.number
        case Word():
            return question, f"{shown.text}, {shown.ink}"
        case Bars():
            pairs = zip(shown.colors, shown.heights, strict=True)
            return question, ", ".join(f"{color} {height}" for color, height in pairs)
        case Table():
            rows = zip("ABC", shown.cells, strict=True)
            return question, ", ".join(f"{name} {x} {y}" for name, (x, y) in rows)
        case Shape():
            asked = shape_questions(shown.split)[shown.number]
            telling = [pair for pair in asked if pair[1] not in ("yes", "no")]
            return rng.choice(telling or asked)


DRAWS = (
    (partial(scene, 1, 1, 1), 35),
    (partial(scene, 2, 1, 4), 30),
    (partial(scene, 3, 1, 5), 10),
    (partial(draw_digits, split="train"), 7),
    (partial(draw_word, split="train"), 8),
    (partial(draw_bars, split="train"), 4),
    (partial(draw_table, split="train"), 3),
    (partial(draw_shape, split="train"), 3),
)
"""What is drawn, and how often in a hundred."""


if __name__ == "__main__":
    auto_cli(captions, as_positional=False)

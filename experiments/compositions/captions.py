"""Draw captioned scenes for the alignment stage, as a LLaVA-format file with images.

Each conversation tells all that a picture shows, thing by thing, with some statements to be called
true or false. It teaches the words and what they look like; nothing of it is asked in the way of
the instruction set.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from questions import OPPOSITE, few
from scenes import CONCEPTS, COUNTS, Scene, Thing, another, changed, draw

PLACES = sorted({Thing("", "", "", cell, True).place for cell in range(9)})


def captions(
    output: str, count: int = 20000, statements: int = 3, seed: int = 1, jobs: int = 2
) -> None:
    """Write `captions.json` and `images/`.

    Args:
        output: folder to write both in.
        count: number of images.
        statements: number of statements, true or false, with each image.
        seed: seed of everything that is drawn.
        jobs: number of processes.
    """
    folder = Path(output)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs) as pool:
        item = partial(write, folder, statements, seed)
        items = list(pool.map(item, range(count), chunksize=500))
    (folder / "captions.json").write_text(json.dumps(items))


def write(folder: Path, statements: int, seed: int, number: int) -> dict[str, Any]:
    rng = random.Random(f"{seed} {number}")
    scene = few(rng, rng.choice(list(CONCEPTS)), 1, 3)
    draw(scene, rng.getrandbits(32)).save(folder / "images" / f"{number}.png")
    everything = ", ".join(f"{size(one)} {one.phrase} {one.place}" for one in in_order(scene))
    pairs = [("tell all.", everything)]
    for _ in range(statements):
        true = rng.random() < 0.5
        pairs.append((rng.choice(STATEMENTS)(rng, scene, true), "true" if true else "false"))
    rng.shuffle(pairs)
    texts = [text for pair in pairs for text in pair]
    texts[0] = "<image>\n" + texts[0]
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": str(number), "image": f"images/{number}.png", "conversations": turns}


def in_order(scene: Scene) -> list[Thing]:
    return sorted(scene, key=lambda thing: thing.cell)


def size(thing: Thing) -> str:
    return "large" if thing.large else "small"


def shown(rng: random.Random, scene: Scene, true: bool) -> str:
    thing, phrases = rng.choice(scene), {one.phrase for one in scene}
    while (thing.phrase in phrases) != true:
        thing = changed(rng, thing)
    return f"{thing.phrase} shown."


def placed(rng: random.Random, scene: Scene, true: bool) -> str:
    thing = rng.choice(scene)
    place = thing.place if true else another(rng, PLACES, thing.place)
    return f"{thing.phrase} at {place}."


def related(rng: random.Random, scene: Scene, true: bool) -> str:
    """A statement about two things in one row or column, else one as `shown` makes it."""
    pairs = [(a, b, how) for a in scene for b in scene if (how := relation(a, b))]
    if not pairs:
        return shown(rng, scene, true)
    a, b, how = rng.choice(pairs)
    return f"{a.phrase} {how if true else OPPOSITE[how]} {b.phrase}."


def relation(a: Thing, b: Thing) -> str | None:
    """Where a lies, seen from b, if that is one word."""
    down, right = a.cell // 3 - b.cell // 3, a.cell % 3 - b.cell % 3
    if bool(down) == bool(right):
        return None
    return ("above" if down < 0 else "below") if down else ("left of" if right < 0 else "right of")


def sized(rng: random.Random, scene: Scene, true: bool) -> str:
    thing = rng.choice(scene)
    return f"{thing.phrase} is {'large' if thing.large == true else 'small'}."


def counted(rng: random.Random, scene: Scene, true: bool) -> str:
    number = COUNTS[len(scene)]
    return f"number is {number if true else another(rng, COUNTS[1:4], number)}."


STATEMENTS: tuple[Callable[[random.Random, Scene, bool], str], ...] = (
    shown,
    placed,
    related,
    sized,
    counted,
)


if __name__ == "__main__":
    auto_cli(captions, as_positional=False)

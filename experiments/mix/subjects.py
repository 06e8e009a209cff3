"""What is asked about: pictures and problems, drawn for one split of the data."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from emoji import KIND, KINDS, SEEN, UNSEEN
from pictures import FONTS, INKS, Bars, Digits, Emoji, Picture, Shape, Table, Thing, Word, digits
from words import WORDS

SPLITS = ("val", "test", "test_mix")
SKEW = 0.7
"""The n-th emoji has a share of 1 / n^SKEW in training data."""


@dataclass(frozen=True)
class Problem:
    """What is asked about without a picture: a task and what it is about, in order."""

    task: str
    parts: tuple[Any, ...]


Subject = Picture | Problem


def split_of(identity: str) -> str:
    """The split that something belongs to: of each ten, one in each of `SPLITS`."""
    number = zlib.crc32(identity.encode()) % 10
    return SPLITS[number] if number < len(SPLITS) else "train"


def names(rng: random.Random, split: str, count: int, unseen: bool = False) -> list[str]:
    """Different names of emoji: some often in training data, all alike elsewhere.

    Args:
        rng: draws them.
        split: where they are for.
        count: how many.
        unseen: half of them, outside the training data, are of pictures that those do not show.
    """
    found: dict[str, None] = {}
    while len(found) < count:
        pool, weights = SEEN, often() if split in ("train", "test_mix") else None
        if unseen and split != "train" and rng.random() < 0.5:
            pool, weights = UNSEEN, None
        found[rng.choices(pool, cum_weights=weights)[0]] = None
    return list(found)


@cache
def often() -> list[float]:
    order = random.Random("often").sample(range(len(SEEN)), len(SEEN))
    return list(accumulate((1 + place) ** -SKEW for place in order))


def draw_emoji(
    rng: random.Random, split: str, side: int, low: int, high: int, unseen: bool = False
) -> Emoji:
    count = rng.randint(low, high)
    cells = sorted(rng.sample(range(side * side), count))
    return Emoji(side, tuple(map(Thing, names(rng, split, count, unseen), cells)))


def draw_alone(rng: random.Random, split: str, unseen: bool = False) -> Emoji:
    return draw_emoji(rng, split, 1, 1, 1, unseen)


def draw_kinds(rng: random.Random, split: str) -> Emoji:
    """One to six of a kind among others."""
    kind = rng.choice(list(KINDS))
    pool = [name for name in SEEN + (UNSEEN if split != "train" else []) if KIND[name] == kind]
    others = [name for name in SEEN if KIND[name] != kind]
    count = rng.randint(1, 6)
    chosen = rng.choices(pool, k=count) + rng.sample(others, rng.randint(0, 7 - count))
    rng.shuffle(chosen)
    return Emoji(3, tuple(map(Thing, chosen, sorted(rng.sample(range(9), len(chosen))))))


def draw_digits(rng: random.Random, split: str) -> Digits:
    return Digits(tuple(rng.choices(digits_of(split), k=rng.randint(1, 3))))


@cache
def digits_of(split: str) -> list[int]:
    return [i for i in range(len(digits()[1])) if split_of(f"digit {i}") == split]


def draw_word(rng: random.Random, split: str) -> Word:
    own = [word for word in WORDS if split_of(f"word {word}") == split]
    return Word(rng.choice(own), rng.choice(FONTS), rng.choice(list(INKS)))


def draw_bars(rng: random.Random, split: str) -> Bars:
    count = rng.randint(2, 5)
    return Bars(tuple(rng.sample(list(INKS), count)), tuple(rng.sample(range(1, 10), count)))


def draw_table(rng: random.Random, split: str) -> Table:
    columns = (rng.sample(range(1, 10), 3) for _ in "XY")
    return Table(tuple(zip(*columns, strict=True)))


def draw_shape(rng: random.Random, split: str) -> Shape:
    if split == "train":
        return Shape("train", rng.randrange(4000))
    return Shape("test", rng.randrange(333) * len(SPLITS) + SPLITS.index(split))


def draw_problem(rng: random.Random, split: str) -> Problem:
    match task := rng.choice(("larger", "plus", "kind", "first")):
        case "larger":
            return Problem(task, tuple(sorted(rng.sample(range(1, 100), 2))))
        case "plus":
            return Problem(task, tuple(sorted((rng.randrange(2, 20), rng.randrange(2, 20)))))
        case "kind":
            return Problem(task, (rng.choice(list(KIND)),))
    return Problem(task, tuple(sorted(rng.sample(WORDS, 3))))


def belongs(subject: Subject, split: str) -> bool:
    """Whether a split may have it; what is drawn from the split's own share, all may."""
    match subject:
        case Emoji(side=1) | Digits() | Word() | Shape():
            return True
    return split_of(repr(subject)) == split

"""The sources of the mix: how pictures come about, and what is asked about them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from typing import Any

from emoji import KIND, KINDS, PLURALS, SEEN, UNSEEN, a
from pictures import (
    COLUMNS,
    FONTS,
    INKS,
    ROWS,
    Bars,
    Digits,
    Emoji,
    Picture,
    Shape,
    Table,
    Thing,
    Word,
    digits,
)
from words import WORDS

COUNTS = ("zero", "one", "two", "three", "four", "five", "six")
SPLITS = ("val", "test", "test_mix")
SKEW = 0.7
"""The n-th emoji has a share of 1 / n^SKEW in training data."""

Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class Problem:
    """What is asked about without a picture: a task and what it is about, in order."""

    task: str
    parts: tuple[Any, ...]


Subject = Picture | Problem


@dataclass(frozen=True)
class Source:
    """One source of the mix.

    Attributes:
        share: of the training data, in percent.
        licence: of what its pictures are made of.
        draws: makes what is asked about, for a split.
        asks: makes questions and answers about a picture.
        questions: how many samples share a picture in the training data.
    """

    share: float
    licence: str
    draws: Callable[[random.Random, str], Subject]
    asks: Callable[[random.Random, Any], Turns]
    questions: int


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


def place(picture: Emoji, thing: Thing) -> str:
    row, column = picture.place(thing)
    return f"{ROWS[row]} {COLUMNS[column]}"


def pick(rng: random.Random, texts: Sequence[str], **parts: str) -> str:
    return rng.choice(texts).format(**parts)


def ask_name(rng: random.Random, picture: Emoji) -> Turns:
    question = pick(
        rng,
        (
            "What is this?",
            "What does the picture show?",
            "Name the object in the image.",
            "What can be seen here? Answer with its name.",
            "Which thing is drawn here?",
            "What is shown in this picture?\nAnswer the question using a single word or phrase.",
        ),
    )
    return [(question, picture.names[0])]


def ask_kind(rng: random.Random, picture: Emoji) -> Turns:
    question = pick(
        rng,
        (
            "What kind of thing is this?",
            "To which group does this belong: {kinds}?",
            "Sort this: {kinds}?",
            "Which category fits the picture?\nAnswer with one of {kinds}.",
        ),
        kinds=", ".join(KINDS),
    )
    return [(question, KIND[picture.names[0]])]


def ask_yes_no(rng: random.Random, picture: Emoji) -> Turns:
    true = rng.random() < 0.5
    shown = picture.names
    if rng.random() < 0.5:
        said = rng.choice(shown if true else [name for name in SEEN if name not in shown])
        what, verb = a(said), "are" if said.endswith("s") and a(said) == said else "is"
    else:
        kinds = {KIND[name] for name in shown}
        what = rng.choice([PLURALS[kind] for kind in KINDS if (kind in kinds) == true])
        what, verb = f"any {what}", "are"
    question = pick(
        rng,
        (
            "{Verb} there {what}?",
            "{Verb} there {what} in the picture?",
            "Can you see {what}?",
            "Does the image show {what}?\nAnswer yes or no.",
        ),
        what=what,
        Verb=verb.capitalize(),
    )
    return [(question, "yes" if true else "no")]


def ask_where(rng: random.Random, picture: Emoji) -> Turns:
    thing = rng.choice(picture.things)
    question = pick(
        rng,
        ("Where is the {it}?", "In which corner is the {it}?", "Locate the {it}."),
        it=thing.name,
    )
    return [(question, place(picture, thing))]


def ask_relation(rng: random.Random, picture: Emoji) -> Turns:
    """Two things in one row or column, or else where one of them is."""
    pairs = [
        (one, other, how)
        for one in picture.things
        for other in picture.things
        if (how := relation(picture, one, other))
    ]
    if not pairs:
        return ask_where(rng, picture)
    one, other, how = rng.choice(pairs)
    if rng.random() < 0.5:
        question = pick(
            rng,
            (
                "What is {how} the {it}?",
                "Which thing is {how} the {it}?",
                "Name what is {how} the {it}.",
            ),
            how=how,
            it=other.name,
        )
        return [(question, one.name)]
    true = rng.random() < 0.5
    question = pick(
        rng,
        ("Is the {one} {how} the {it}?", "Does the {one} lie {how} the {it}?\nAnswer yes or no."),
        one=one.name,
        it=other.name,
        how=how if true else OPPOSITE[how],
    )
    return [(question, "yes" if true else "no")]


OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def relation(picture: Emoji, one: Thing, other: Thing) -> str | None:
    """How the one lies to the other, if they share a row or a column."""
    (row, column), (other_row, other_column) = picture.place(one), picture.place(other)
    if (row == other_row) == (column == other_column):
        return None
    if row == other_row:
        return "left of" if column < other_column else "right of"
    return "above" if row < other_row else "below"


def ask_spatial(rng: random.Random, picture: Emoji) -> Turns:
    return (ask_relation if rng.random() < 0.7 else ask_where)(rng, picture)


def ask_count(rng: random.Random, picture: Emoji) -> Turns:
    kind = KIND[rng.choice(picture.names)]
    number = sum(KIND[name] == kind for name in picture.names)
    question = pick(
        rng,
        (
            "How many {what} are there?",
            "Count the {what}.",
            "How many {what} does the picture show?\nAnswer with a number word.",
            "What is the number of {what}?",
        ),
        what=PLURALS[kind],
    )
    return [(question, COUNTS[number])]


def ask_total(rng: random.Random, picture: Emoji) -> Turns:
    question = pick(rng, ("How many things are there?", "How many pictures do you see?"))
    return [(question, COUNTS[len(picture.things)])]


def ask_describe(rng: random.Random, picture: Emoji) -> Turns:
    question = pick(
        rng,
        (
            "Describe the picture.",
            "Tell what is to be seen, and where.",
            "Provide a short description of the given image.",
            "What is in the image, and where is it?",
        ),
    )
    said = [f"{a(thing.name)} at the {place(picture, thing)}" for thing in picture.things]
    return [(question, " and ".join(filter(None, (", ".join(said[:-1]), said[-1]))))]


def ask_turns(rng: random.Random, picture: Emoji) -> Turns:
    """Two to four questions, none twice."""
    asked: dict[str, str] = {}
    count = rng.randint(2, 4)
    while len(asked) < count:
        ask = rng.choice((ask_yes_no, ask_where, ask_relation, ask_total, ask_describe))
        asked.update(ask(rng, picture))
    return list(asked.items())


def ask_number(rng: random.Random, picture: Digits) -> Turns:
    return [
        (
            pick(
                rng, ("What number is written here?", "Read the digits.", "Which number is this?")
            ),
            picture.number,
        )
    ]


def ask_word(rng: random.Random, picture: Word) -> Turns:
    if rng.random() < 0.2:
        return [
            (pick(rng, ("What color is the text?", "In which color is it written?")), picture.ink)
        ]
    question = pick(
        rng,
        (
            "What does it say?",
            "Read the text.",
            "Which word is written in the image?",
            "What is written here?",
        ),
    )
    return [(question, picture.text)]


def ask_bars(rng: random.Random, picture: Bars) -> Turns:
    by_height = dict(zip(picture.heights, picture.colors, strict=True))
    one, other = rng.sample(list(by_height), 2)
    highest, lowest = by_height[max(by_height)], by_height[min(by_height)]
    return [
        rng.choice(
            (
                (
                    pick(rng, ("Which bar is the highest?", "What color has the largest value?")),
                    highest,
                ),
                (
                    pick(rng, ("Which bar is the lowest?", "What color has the smallest value?")),
                    lowest,
                ),
                (
                    pick(rng, ("How many bars does the chart have?", "Count the bars.")),
                    COUNTS[len(by_height)],
                ),
                (
                    f"Is the {by_height[one]} bar higher than the {by_height[other]} bar?",
                    "yes" if one > other else "no",
                ),
            )
        )
    ]


def ask_table(rng: random.Random, picture: Table) -> Turns:
    row, column = rng.randrange(3), rng.randrange(2)
    values = [line[column] for line in picture.cells]
    name = "XY"[column]
    if rng.random() < 0.7:
        question = pick(
            rng,
            (
                "What is in row {row}, column {name}?",
                "Read {name} of {row}.",
                "Which number has {row} under {name}?",
            ),
            row="ABC"[row],
            name=name,
        )
        return [(question, str(values[row]))]
    return [(f"Which row has the largest {name}?", "ABC"[values.index(max(values))])]


def ask_shape(rng: random.Random, picture: Shape) -> Turns:
    return [rng.choice(shape_questions(picture.split)[picture.number])]


@cache
def shape_questions(split: str) -> dict[int, Turns]:
    """easy-VQA's own questions, by picture."""
    import easy_vqa

    asked = {"train": easy_vqa.get_train_questions, "test": easy_vqa.get_test_questions}[split]()
    found: dict[int, Turns] = {}
    for question, answer, number in zip(*asked, strict=True):
        found.setdefault(number, []).append((question, answer))
    return found


def ask_text(rng: random.Random, problem: Problem) -> Turns:
    """Questions that need no picture."""
    parts = [str(part) for part in problem.parts]
    rng.shuffle(parts)
    match problem.task:
        case "larger":
            texts = ("Which is larger, {0} or {1}?", "{0} or {1}: which is more?")
            answer = str(max(problem.parts))
        case "plus":
            texts = ("What is {0} plus {1}?", "Add {0} and {1}.")
            answer = str(sum(problem.parts))
        case "kind":
            texts = ("What kind of thing is {0}?", "To which kind of thing does {0} belong?")
            answer, parts = KIND[parts[0]], [a(parts[0])]
        case _:
            texts = (
                "Which comes first in the alphabet: {0}, {1} or {2}?",
                "Sort {0}, {1} and {2} by their letters. Which is first?",
            )
            answer = min(parts)
    return [(rng.choice(texts).format(*parts), answer)]


OPENMOJI, OWN = "CC BY-SA 4.0 (OpenMoji)", "made here"
SOURCES = {
    "name": Source(12.9, OPENMOJI, draw_alone, ask_name, 2),
    "yes or no": Source(12.5, OPENMOJI, partial(draw_emoji, side=2, low=1, high=4), ask_yes_no, 5),
    "describe": Source(12.0, OPENMOJI, partial(draw_emoji, side=2, low=1, high=3), ask_describe, 2),
    "easy-VQA": Source(12.0, "MIT (easy-VQA)", draw_shape, ask_shape, 8),
    "turns": Source(11.7, OPENMOJI, partial(draw_emoji, side=2, low=2, high=4), ask_turns, 2),
    "spatial": Source(10.8, OPENMOJI, partial(draw_emoji, side=2, low=2, high=4), ask_spatial, 5),
    "sort": Source(9.9, OPENMOJI, partial(draw_alone, unseen=True), ask_kind, 3),
    "count": Source(7.2, OPENMOJI, draw_kinds, ask_count, 2),
    "text": Source(6.1, OWN, draw_problem, ask_text, 1),
    "words": Source(2.0, "DejaVu, STIX and Computer Modern fonts", draw_word, ask_word, 1),
    "bars": Source(1.3, OWN, draw_bars, ask_bars, 2),
    "digits": Source(1.0, "BSD-3-Clause (scikit-learn)", draw_digits, ask_number, 1),
    "table": Source(0.6, OWN, draw_table, ask_table, 2),
}
"""Shares fall as those of LLaVA-1.5's sources do, from 24 to 1.4 percent there."""

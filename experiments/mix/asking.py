"""Questions with their answers, each worded in several ways."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from emoji import KIND, KINDS, PLURALS, SEEN, a
from pictures import COLUMNS, ROWS, Bars, Digits, Emoji, Shape, Table, Thing, Word
from subjects import Problem

COUNTS = ("zero", "one", "two", "three", "four", "five", "six")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Turns = list[tuple[str, str]]


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

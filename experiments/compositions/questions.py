"""Skills: what is asked about a scene, and the scene that it is asked about."""

from __future__ import annotations

import random
from collections.abc import Callable

from scenes import COLORS, CONCEPTS, COUNTS, Scene, Thing, another, changed, things

Sample = tuple[Scene, list[tuple[str, str]]]
"""A scene, and questions with their answers."""
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def one_of(rng: random.Random, *texts: str) -> str:
    return rng.choice(texts)


def few(rng: random.Random, concept: str, low: int, high: int) -> Scene:
    """A scene of some things in cells drawn at random."""
    return things(rng, concept, rng.sample(range(9), rng.randint(low, high)))


def pair(rng: random.Random, concept: str, large: list[bool] | None = None) -> tuple[Scene, str]:
    """Two different things in one row or column, and how the first, in reading order, lies."""
    line, (a, b) = rng.randrange(3), sorted(rng.sample(range(3), 2))
    if rng.random() < 0.5:
        cells, how = (3 * line + a, 3 * line + b), "left of"
    else:
        cells, how = (3 * a + line, 3 * b + line), "above"
    names = rng.sample(CONCEPTS[concept].names, 2)
    return things(rng, concept, cells, names=names, large=large), how


def ask_name(rng: random.Random, scene: Scene, thing: Thing) -> tuple[str, str]:
    noun = CONCEPTS[thing.concept].noun
    question = one_of(
        rng,
        f"what {noun} is {thing.color}?",
        f"name the {thing.color} {noun}.",
        f"the {thing.color} {noun} is which?",
    )
    return question, thing.name


def ask_presence(rng: random.Random, scene: Scene, thing: Thing) -> tuple[str, str]:
    said, true = thing, rng.random() < 0.5
    phrases = {one.phrase for one in scene}
    while not true and said.phrase in phrases:
        said = changed(rng, thing)
    question = one_of(
        rng,
        f"is there a {said.phrase}?",
        f"does the image show a {said.phrase}?",
        f"a {said.phrase}, yes or no?",
    )
    return question, "yes" if true else "no"


def ask_place(rng: random.Random, scene: Scene, thing: Thing) -> tuple[str, str]:
    question = one_of(
        rng,
        f"where is the {thing.phrase}?",
        f"in which part is the {thing.phrase}?",
        f"locate the {thing.phrase}.",
    )
    return question, thing.place


def name(rng: random.Random, concept: str) -> Sample:
    scene = few(rng, concept, 1, 3)
    return scene, [ask_name(rng, scene, scene[0])]


def presence(rng: random.Random, concept: str) -> Sample:
    scene = few(rng, concept, 2, 3)
    return scene, [ask_presence(rng, scene, scene[0])]


def locate(rng: random.Random, concept: str) -> Sample:
    scene = few(rng, concept, 2, 3)
    return scene, [ask_place(rng, scene, scene[0])]


def count(rng: random.Random, concept: str) -> Sample:
    scene = few(rng, concept, 1, 6)
    nouns = CONCEPTS[concept].noun + "s"
    question = one_of(
        rng,
        f"how many {nouns} are there?",
        f"count the {nouns}.",
        f"what number of {nouns} is in the image?",
    )
    return scene, [(question, COUNTS[len(scene)])]


def compare(rng: random.Random, concept: str) -> Sample:
    scene, _ = pair(rng, concept, rng.sample([True, False], 2))
    larger = rng.random() < 0.5
    word = "larger" if larger else "smaller"
    noun = CONCEPTS[concept].noun
    a, b = (thing.color for thing in rng.sample(scene, 2))
    question = one_of(
        rng,
        f"which {noun} is {word}, {a} or {b}?",
        f"compare the {a} and the {b} {noun}: which is {word}?",
    )
    return scene, [(question, next(t.color for t in scene if t.large == larger))]


def relation(rng: random.Random, concept: str) -> Sample:
    scene, how = pair(rng, concept)
    a, b = scene
    if rng.random() < 0.5:
        a, b, how = b, a, OPPOSITE[how]
    question = one_of(
        rng,
        f"where is the {a.phrase} from the {b.phrase}?",
        f"how does the {a.phrase} lie to the {b.phrase}?",
    )
    return scene, [(question, how)]


def read(rng: random.Random, concept: str) -> Sample:
    row, nouns = 3 * rng.randrange(3), CONCEPTS[concept].noun + "s"
    scene = things(rng, concept, range(row, row + 3))
    question = one_of(
        rng,
        f"read the {nouns} from left to right.",
        f"what do the {nouns} say?",
        "read what is in the image.",
    )
    return scene, [(question, " ".join(thing.name for thing in scene))]


def odd(rng: random.Random, concept: str) -> Sample:
    """Four things, of which one has another name, or another color."""
    cells, which = rng.sample(range(9), 4), rng.randrange(4)
    kind, color = rng.choice(CONCEPTS[concept].names), rng.choice(list(COLORS))
    names, colors, noun = [kind] * 4, [color] * 4, CONCEPTS[concept].noun
    if rng.random() < 0.5:
        names[which] = answer = another(rng, CONCEPTS[concept].names, kind)
        what = noun
    else:
        colors[which] = answer = another(rng, list(COLORS), color)
        what = "color"
    scene = things(rng, concept, cells, names, colors)
    question = one_of(
        rng,
        f"one {noun} is not as the others: what {what}?",
        f"which {what} is different?",
        f"find the odd {noun}: what {what}?",
    )
    return scene, [(question, answer)]


def caption(rng: random.Random, concept: str) -> Sample:
    scene, how = pair(rng, concept)
    question = one_of(
        rng, "describe the image briefly.", "what does the picture show?", "describe it."
    )
    return scene, [(question, f"a {scene[0].phrase} {how} a {scene[1].phrase}")]


def turns(rng: random.Random, concept: str) -> Sample:
    scene = few(rng, concept, 2, 3)
    asks = rng.sample([ask_name, ask_presence, ask_place], rng.randint(2, 3))
    return scene, [ask(rng, scene, rng.choice(scene)) for ask in asks]


SKILLS: dict[str, Callable[[random.Random, str], Sample]] = {
    "yes or no": presence,
    "name": name,
    "count": count,
    "locate": locate,
    "caption": caption,
    "turns": turns,
    "relation": relation,
    "compare": compare,
    "read": read,
    "odd one out": odd,
}
READ = ("digits", "letters", "arrows")
"""Concepts of which a row can be read."""


def compositions() -> list[tuple[str, str]]:
    """All pairs of concept and skill."""
    return [
        (concept, skill)
        for concept in CONCEPTS
        for skill in SKILLS
        if skill != "read" or concept in READ
    ]

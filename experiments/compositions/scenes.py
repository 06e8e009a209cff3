"""Small pictures of things: shapes, digits, letters, arrows, tiles, faces."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

SIDE = 48
SCALE = 4  # drawn larger, for smooth edges
CELL = SIDE // 3
SMALL, LARGE = 5, 7
"""Half the width of a thing, in pixels."""
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")
COLORS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (30, 60, 230),
    "yellow": (230, 185, 0),
    "purple": (150, 40, 190),
    "orange": (250, 130, 10),
    "brown": (120, 70, 30),
    "black": (15, 15, 15),
}
COUNTS = ("zero", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Concept:
    """A kind of thing.

    Attributes:
        noun: what one is called.
        names: what tells them apart.
        suffix: what follows the name where a phrase needs it.
    """

    noun: str
    names: tuple[str, ...]
    suffix: str = ""


CONCEPTS = {
    "shapes": Concept("shape", ("circle", "square", "triangle", "star", "cross", "ring")),
    "digits": Concept("digit", tuple("0123456789")),
    "letters": Concept("letter", tuple("ACEHKLMPSTXZ")),
    "arrows": Concept("arrow", ("up", "down", "left", "right"), " arrow"),
    "tiles": Concept("tile", ("plain", "striped", "dotted", "checked"), " tile"),
    "faces": Concept("face", ("happy", "sad", "surprised", "calm"), " face"),
}


@dataclass(frozen=True)
class Thing:
    """One thing in a picture.

    Attributes:
        concept: key of `CONCEPTS`.
        name: one of the concept's.
        color: key of `COLORS`.
        cell: 0 to 8, row by row.
        large: or small.
    """

    concept: str
    name: str
    color: str
    cell: int
    large: bool

    @property
    def phrase(self) -> str:
        """Such as `red circle`."""
        return f"{self.color} {self.name}{CONCEPTS[self.concept].suffix}"

    @property
    def place(self) -> str:
        """Such as `top left`; `middle` in the middle of both."""
        row, column = ROWS[self.cell // 3], COLUMNS[self.cell % 3]
        return row if row == column else f"{row} {column}"


Scene = tuple[Thing, ...]


def things(
    rng: random.Random,
    concept: str,
    cells: Sequence[int],
    names: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    large: Sequence[bool] | None = None,
) -> Scene:
    """A scene with a thing in each cell; what is not given is drawn, all colors different."""
    n = len(cells)
    names = names or rng.choices(CONCEPTS[concept].names, k=n)
    colors = colors or rng.sample(list(COLORS), n)
    large = large or [rng.random() < 0.6 for _ in cells]
    return tuple(Thing(concept, *one) for one in zip(names, colors, cells, large, strict=True))


def draw(scene: Scene, seed: int) -> Image.Image:
    """The picture of a scene; `seed` moves things a little and tints the ground."""
    rng = random.Random(seed)
    ground = tuple(rng.randint(228, 255) for _ in range(3))
    image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), ground)
    pen = ImageDraw.Draw(image)
    for thing in scene:
        radius = (LARGE if thing.large else SMALL) * SCALE
        x, y = (
            (place * CELL + CELL // 2) * SCALE + rng.randint(-SCALE, SCALE)
            for place in (thing.cell % 3, thing.cell // 3)
        )
        DRAWN[thing.concept](pen, thing.name, COLORS[thing.color], x, y, radius)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


Color = tuple[int, int, int]
WHITE = (255, 255, 255)


def polygon(x: int, y: int, radius: float, corners: int, inner: float = 1.0) -> list[float]:
    """Corners of a regular polygon, the first one up; every second one at `inner` of the radius."""
    points = []
    for i in range(corners):
        angle = 2 * math.pi * i / corners - math.pi / 2
        length = radius * (inner if i % 2 else 1.0)
        points += [x + length * math.cos(angle), y + length * math.sin(angle)]
    return points


def shape(pen: ImageDraw.ImageDraw, name: str, color: Color, x: int, y: int, r: int) -> None:
    box = (x - r, y - r, x + r, y + r)
    if name == "circle":
        pen.ellipse(box, fill=color)
    elif name == "ring":
        pen.ellipse(box, outline=color, width=r // 3)
    elif name == "square":
        pen.rectangle([v + s * r // 8 for v, s in zip(box, (1, 1, -1, -1), strict=True)], color)
    elif name == "triangle":
        pen.polygon([x, y - r, x + r, y + r * 0.8, x - r, y + r * 0.8], color)
    elif name == "star":
        pen.polygon(polygon(x, y, r * 1.1, 10, 0.45), color)
    else:
        arm = r // 3
        pen.rectangle((x - r, y - arm, x + r, y + arm), color)
        pen.rectangle((x - arm, y - r, x + arm, y + r), color)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Bold, which comes with matplotlib."""
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold")), size)


def glyph(pen: ImageDraw.ImageDraw, name: str, color: Color, x: int, y: int, r: int) -> None:
    pen.text((x, y), name, fill=color, font=font(int(2.6 * r)), anchor="mm")


def arrow(pen: ImageDraw.ImageDraw, name: str, color: Color, x: int, y: int, r: int) -> None:
    h, v = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[name]
    pen.line((x - h * r, y - v * r, x + h * r // 4, y + v * r // 4), color, width=r // 2)
    side = int(0.85 * r)
    pen.polygon(
        [x + h * r, y + v * r, x + v * side, y + h * side, x - v * side, y - h * side], color
    )


def tile(pen: ImageDraw.ImageDraw, name: str, color: Color, x: int, y: int, r: int) -> None:
    left, top = x - r, y - r
    box = (left, top, x + r, y + r)
    pen.rectangle(box, color if name == "plain" else WHITE, outline=color, width=SCALE)
    step = 2 * r / 5
    for i in range(5):
        for j in range(5):
            a, b = left + i * step, top + j * step
            if (name == "striped" and j % 2 == 0) or (name == "checked" and (i + j) % 2 == 0):
                pen.rectangle((a, b, a + step, b + step), color)
            elif name == "dotted" and i % 2 and j % 2:
                pen.ellipse((a - 1, b - 1, a + step + 1, b + step + 1), color)


def face(pen: ImageDraw.ImageDraw, name: str, color: Color, x: int, y: int, r: int) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), color)
    dot, width = r // 5, max(SCALE, r // 4)
    for side in (-1, 1):
        a, b = x + side * r * 0.4, y - r * 0.3
        pen.ellipse((a - dot, b - dot, a + dot, b + dot), WHITE)
    low, half = y + r * 0.3, r * 0.55
    if name == "happy":
        pen.arc((x - half, low - half, x + half, low + half), 15, 165, WHITE, width)
    elif name == "sad":
        pen.arc((x - half, low, x + half, low + 2 * half), 195, 345, WHITE, width)
    elif name == "calm":
        pen.line((x - half, low + dot, x + half, low + dot), WHITE, width)
    else:
        pen.ellipse((x - 0.3 * r, low - 0.2 * r, x + 0.3 * r, low + 0.5 * r), WHITE)


DRAWN: dict[str, Callable[..., None]] = {
    "shapes": shape,
    "digits": glyph,
    "letters": glyph,
    "arrows": arrow,
    "tiles": tile,
    "faces": face,
}


def another(rng: random.Random, options: Sequence[str], *but: str) -> str:
    """An option drawn from those that are not excluded."""
    return rng.choice([one for one in options if one not in but])


def changed(rng: random.Random, thing: Thing) -> Thing:
    """The same thing in another color, or under another name."""
    if rng.random() < 0.5:
        return replace(thing, color=another(rng, list(COLORS), thing.color))
    return replace(thing, name=another(rng, CONCEPTS[thing.concept].names, thing.name))

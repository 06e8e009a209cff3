"""What is on a picture, as facts that questions are asked about, and how it is drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from emoji import picture
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

SIDE = 96
ROWS, COLUMNS = ("top", "bottom"), ("left", "right")
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBolIta", "cmr10"),
)
INKS = {
    "red": (215, 30, 30),
    "green": (20, 150, 50),
    "blue": (40, 70, 225),
    "yellow": (235, 190, 0),
    "purple": (150, 50, 190),
    "black": (20, 20, 20),
}


@dataclass(frozen=True)
class Thing:
    """An emoji in a cell of a grid, counted row by row."""

    name: str
    cell: int


@dataclass(frozen=True)
class Emoji:
    """Emoji in a grid of side × side cells."""

    side: int
    things: tuple[Thing, ...]

    @property
    def names(self) -> list[str]:
        return [thing.name for thing in self.things]

    def place(self, thing: Thing) -> tuple[int, int]:
        """Row and column."""
        return divmod(thing.cell, self.side)

    def draw(self, rng: random.Random) -> Image.Image:
        image = ground(rng)
        cell = SIDE / self.side
        for thing in self.things:
            row, column = self.place(thing)
            one = picture(thing.name).rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, True)
            scale = cell * rng.uniform(*((0.6, 0.9) if self.side == 1 else (0.8, 0.95)))
            scale /= max(one.size)
            one = one.resize(
                [max(1, round(scale * size)) for size in one.size], Image.Resampling.BOX
            )
            free = [cell - size for size in one.size]
            x, y = (rng.uniform(0.15, 0.85) * space for space in free)
            image.paste(one, (round(column * cell + x), round(row * cell + y)), one)
        return image


@dataclass(frozen=True)
class Digits:
    """Handwritten digits of scikit-learn in a row."""

    indices: tuple[int, ...]

    @property
    def number(self) -> str:
        return "".join(str(digits()[1][index]) for index in self.indices)

    def draw(self, rng: random.Random) -> Image.Image:
        image = ground(rng)
        ink = Image.new("RGB", (SIDE, SIDE), rng.choice(list(INKS.values())))
        width = SIDE // max(2, len(self.indices))
        mask = Image.new("L", (SIDE, SIDE))
        for at, index in enumerate(self.indices):
            one = Image.fromarray((digits()[0][index] / 16 * 255).astype(np.uint8))
            left = (SIDE - width * len(self.indices)) // 2 + at * width
            mask.paste(
                one.resize((width, width), Image.Resampling.BICUBIC), (left, (SIDE - width) // 2)
            )
        image.paste(ink, (0, 0), mask)
        return image


@dataclass(frozen=True)
class Word:
    """A word in a font."""

    text: str
    font: str
    ink: str

    def draw(self, rng: random.Random) -> Image.Image:
        image = ground(rng)
        size = 34
        while font(self.font, size).getlength(self.text) > SIDE - 8:
            size -= 1
        y = SIDE // 2 + rng.randint(-20, 20)
        pen = ImageDraw.Draw(image)
        pen.text((SIDE // 2, y), self.text, INKS[self.ink], font(self.font, size), anchor="mm")
        return image


@dataclass(frozen=True)
class Bars:
    """A bar chart: colors and heights, from left to right."""

    colors: tuple[str, ...]
    heights: tuple[int, ...]

    def draw(self, rng: random.Random) -> Image.Image:
        image = ground(rng)
        pen = ImageDraw.Draw(image)
        width = (SIDE - 12) // len(self.colors)
        for at, (color, height) in enumerate(zip(self.colors, self.heights, strict=True)):
            left = 8 + at * width
            pen.rectangle((left + 2, 88 - 9 * height, left + width - 3, 88), INKS[color])
        pen.line((6, 4, 6, 89, 92, 89), (60, 60, 60), 2)
        return image


@dataclass(frozen=True)
class Table:
    """A table of digits; its rows are A, B, C and its columns X, Y."""

    cells: tuple[tuple[int, int], ...]

    def draw(self, rng: random.Random) -> Image.Image:
        image = ground(rng)
        pen = ImageDraw.Draw(image)
        texts = [["", "X", "Y"]] + [["ABC"[i], *map(str, row)] for i, row in enumerate(self.cells)]
        for row, line in enumerate(texts):
            for column, text in enumerate(line):
                at = (16 + 32 * column, 12 + 24 * row)
                bold = not row or not column
                face = font("DejaVuSans-Bold" if bold else "DejaVuSans", 19)
                pen.text(at, text, (20, 20, 90) if bold else (10, 10, 10), face, anchor="mm")
        for row in range(1, 4):
            pen.line((2, 24 * row, 93, 24 * row), (130, 130, 130))
        for column in range(1, 3):
            pen.line((32 * column, 2, 32 * column, 93), (130, 130, 130))
        return image


@dataclass(frozen=True)
class Shape:
    """A picture of easy-VQA."""

    split: str
    number: int

    def draw(self, rng: random.Random) -> Image.Image:
        import easy_vqa

        paths = {"train": easy_vqa.get_train_image_paths, "test": easy_vqa.get_test_image_paths}
        with Image.open(paths[self.split]()[self.number]) as image:
            return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)


Picture = Emoji | Digits | Word | Bars | Table | Shape


def ground(rng: random.Random) -> Image.Image:
    """A bright ground."""
    return Image.new("RGB", (SIDE, SIDE), tuple(rng.randint(225, 255) for _ in range(3)))


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 8, 8] of 0 to 16, and which digit each is."""
    found = load_digits()
    return found.images, found.target


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)

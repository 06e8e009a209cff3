"""Draw captioned shapes for the alignment stage, as a LLaVA-format file with images.

Each image shows one shape, as easy-VQA's do. Its conversation holds, in random order, a caption
that names color and shape, and statements to be called true or false: one word in answer to a
picture and a word is what a model from scratch learns last. Nothing of easy-VQA itself is used.
"""

import json
import random
import sys
from pathlib import Path

from jsonargparse import auto_cli
from PIL import Image, ImageDraw
from rich.progress import track

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}
SHAPES = ("circle", "rectangle", "triangle")
SIZE = 64


def captions(output: str, count: int, statements: int = 3, seed: int = 1) -> None:
    """Write `captions.json` and `images/`.

    Args:
        output: folder to write both in.
        count: number of images.
        statements: number of statements, true or false, with each image.
        seed: seed of everything that is drawn.
    """
    folder, rng, items = Path(output), random.Random(seed), []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in track(range(count), "drawing", disable=not sys.stdout.isatty()):
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        picture(rng, color, shape).save(folder / "images" / f"{number}.png")
        pairs = [("describe the image.", f"a {color} {shape}.")]
        pairs += [statement(rng, color, shape) for _ in range(statements)]
        rng.shuffle(pairs)
        turns = [
            {"from": sender, "value": text}
            for pair in pairs
            for sender, text in zip(("human", "gpt"), pair, strict=True)
        ]
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
        items.append({"id": str(number), "image": f"images/{number}.png", "conversations": turns})
    (folder / "captions.json").write_text(json.dumps(items))


def statement(rng: random.Random, color: str, shape: str) -> tuple[str, str]:
    """About color or, somewhat more often, shape, which is harder; true half of the time."""
    about_shape, true = rng.random() < 0.6, rng.random() < 0.5
    names, shown = (SHAPES, shape) if about_shape else (tuple(COLORS), color)
    said = shown if true else rng.choice([name for name in names if name != shown])
    start = rng.choice(("", "this is ", "it does show "))
    article = "a " if about_shape and start else ""
    return f"{start}{article}{said}.", "true" if true else "false"


def picture(rng: random.Random, color: str, shape: str) -> Image.Image:
    """One shape on a light ground, drawn at twice the size for smooth edges."""
    side = 2 * SIZE
    image = Image.new("RGB", (side, side), tuple(rng.randint(225, 255) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    width = rng.randint(20, 64)
    height = rng.randint(16, 64) if shape == "rectangle" else width
    x, y = rng.randint(0, side - width), rng.randint(0, side - height)
    box = (x, y, x + width, y + height)
    if shape == "circle":
        draw.ellipse(box, fill=COLORS[color])
    elif shape == "rectangle":
        draw.rectangle(box, fill=COLORS[color])
    else:
        draw.polygon(((x, y + height), (x + width, y + height), (x + width / 2, y)), COLORS[color])
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    auto_cli(captions, as_positional=False)

"""Open images safely: inside their folder, whole, upright, and in RGB."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from coincide_pl.data.image_states import located
from coincide_pl.data.record import Unusable
from coincide_pl.data.shards.packed import Packed
from coincide_pl.data.shards.places import is_url
from coincide_pl.progress import progress

MAX_PIXELS = 178_956_970
"""Larger images are refused: Pillow's own limit against decompression bombs."""
MAX_RATIO = 100
"""Images that are more times as long as wide, or as wide as long, are refused: models scale the
shorter side to hundreds of pixels, and the longer one with it."""
MISSING, BROKEN = "with a missing image", "with a broken image"
"""Kinds of unusable images, as they are counted."""
FAULTS = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError),
    *(AttributeError, RuntimeError, struct.error, zlib.error),
)
"""What Pillow's decoders raise at damaged images."""
IMAGES_PER_TASK = 64
"""How many images a thread opens before it takes more."""


def open_image(root: Path, relative: str) -> Image.Image:
    """Open one image of a data set, whole and decoded.

    Args:
        root: the image folder.
        relative: path within it; links that lead out of it are refused.

    Returns:
        The first frame in RGB, turned as its EXIF data say; 16-bit gray is scaled to 8 bits.

    Raises:
        Unusable: a `DataError`, naming the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read(root, relative)


def unusable_images(
    root: Path, names: Sequence[str], num_threads: int | None = None
) -> dict[str, Unusable]:
    """Images that can't be opened and decoded, with the reason, in the order of `names`.

    Decoding lets go of the interpreter, so threads share it well. A JPEG is decoded at an eighth
    of its size: every byte of it is read all the same.

    Args:
        root: the image folder.
        names: paths within it.
        num_threads: number of images that are opened at a time (default: two for each core, for
            they wait for the disk too).
    """
    found: dict[str, Unusable] = {}

    def look(part: Sequence[str]) -> dict[str, Unusable]:
        bad = {}
        for name in part:
            try:
                _read(root, name, scale=8)
            except Unusable as error:
                bad[name] = error
        return bad

    parts = [names[i : i + IMAGES_PER_TASK] for i in range(0, len(names), IMAGES_PER_TASK)]
    workers = num_threads or 2 * (os.cpu_count() or 1)
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers) as pool,
        progress("images", len(names)) as advance,
    ):
        warnings.simplefilter("ignore")
        for part, bad in zip(parts, pool.map(look, parts), strict=True):
            found |= bad
            advance(len(part))
    return found


def _read(root: Path, relative: str, scale: int = 1) -> Image.Image:
    """Opens and decodes an image; a JPEG may come out up to `scale` times smaller."""
    packed = Packed.of(relative)
    path = packed.place(root) if packed else located(root, relative)
    name = os.path.join(root, relative) if packed else path
    name = name if name.isprintable() else repr(name)
    try:
        if not is_url(path) and not _is_inside(root, path):
            advice = "link its folder directly into that, if it may be read"
            raise Unusable(BROKEN, f"{name}: leads outside the image folder {root}; {advice}")
        if not is_url(path) and not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block
            raise Unusable(BROKEN, f"{name}: not an ordinary file")
        with Image.open(BytesIO(packed.read(root)) if packed else path) as image:
            size = f"{image.width} by {image.height} pixels"
            if image.width * image.height > MAX_PIXELS:
                raise Unusable(BROKEN, f"{name}: {size} are too many")
            if max(image.size) > MAX_RATIO * min(image.size):
                ratio = f"one side is more than {MAX_RATIO} times as long as the other"
                raise Unusable(BROKEN, f"{name}: {size}: {ratio}")
            if scale > 1:
                image.draft(None, (image.width // scale or 1, image.height // scale or 1))
            return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise Unusable(MISSING, f"{name}: no such image") from None
    except UnidentifiedImageError:
        raise Unusable(BROKEN, f"{name}: not an image") from None
    except Image.DecompressionBombError:
        raise Unusable(BROKEN, f"{name}: too many pixels") from None
    except FAULTS as error:
        reason = " ".join(str(error).split())
        raise Unusable(BROKEN, f"{name}: a broken image ({reason})") from error


def _is_inside(root: Path, path: str) -> bool:
    """Whether a file lies in the image folder, or in a folder that is linked directly into it.

    A mix of data sets has such a link for each of their image folders, so one more counts there.
    """
    real = os.path.realpath(path)
    if real.startswith(_real(str(root))):
        return True
    first, *rest = os.path.relpath(path, root).split("/")
    linked = os.path.join(root, first)
    folders = [linked] if rest and first != ".." else []
    if len(rest) > 1 and os.path.islink(linked):
        folders.append(os.path.join(linked, rest[0]))
    return any(real.startswith(_real(folder)) for folder in folders)


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.join(os.path.realpath(folder), "")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda level: level / 257).convert("L")
    image = image.convert("RGB")
    image.info = {}  # what a file says of its palette, transparency or size is about that file
    return image

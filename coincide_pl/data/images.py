"""Open one image safely: inside its folder, whole, upright, and in RGB."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from coincide_pl.errors import DataError

MAX_PIXELS = 178_956_970
"""Larger images are refused: Pillow's own limit against decompression bombs."""


def open_image(root: Path, relative: str) -> Image.Image:
    """One image of a data set.

    Args:
        root: the image folder.
        relative: path within it; links that lead out of it are refused.

    Returns:
        The first frame in RGB, turned as its EXIF data say; 16-bit grey is scaled to 8 bits.

    Raises:
        DataError: naming the file.
    """
    path = root / relative
    name = repr(str(path)) if not str(path).isprintable() else str(path)
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{name}: leads outside the image folder {root}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{name}: {image.width} by {image.height} pixels are too many")
                return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"{name}: no such image") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name}: too many pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError) as error:
        raise DataError(f"{name}: a broken image ({error})".replace("\n", " ")) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda level: level / 257).convert("L")
    return image.convert("RGB")

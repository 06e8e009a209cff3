"""Whether records that were read before are still those of the data, to be used again."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress
from pathlib import Path

from coincide_pl.data.image_states import file_states
from coincide_pl.data.records import Records
from coincide_pl.files import content_digest, is_as_it_was

log = logging.getLogger(__name__)


def code_digest(reader: type[object]) -> str | None:
    """A digest of the source of a reader that is not this package's own: edited, it reads again."""
    if reader.__module__.startswith("coincide_pl."):
        return None
    with suppress(OSError, TypeError):
        return content_digest(Path(inspect.getfile(reader)))
    return None


def left_out_as_before(records: Records) -> bool:
    """Whether the image folder is there, and images that were left out are as they were."""
    images, root = records.notes.left_out_images, records.image_root
    return root.is_dir() and file_states(root, images) == images


def is_whole(path: Path, digest: Path) -> bool:
    """Whether a file of records is there, and what it was when it was written."""
    with suppress(FileNotFoundError):
        if is_as_it_was(path, digest.read_text(errors="replace")):
            return True
        log.warning("%s: damaged", path)
    return False

"""Load a model from a Hugging Face checkpoint, tell what it was, and write it back."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel

from coincide_pl.errors import FileError, ModelError
from coincide_pl.files import beside, check_replaced
from coincide_pl.models.hub import cached, check_hub
from coincide_pl.models.spellings import write_older

log = logging.getLogger(__name__)

DType = Literal["float32", "bfloat16", "float16"]
"""Floating-point types that weights are held in, by torch's names."""


def load_model(
    pretrained: str, *, dtype: DType = "float32", attn_implementation: str = "sdpa"
) -> PreTrainedModel:
    """Load an image-text-to-text model; no code from the checkpoint is ever run.

    Args:
        pretrained: a directory written by `save_pretrained`, or a name on the Hugging Face hub.
        dtype: in which the weights are held.
        attn_implementation: how attention is computed, by transformers' name (`sdpa`,
            `flash_attention_2`).

    Raises:
        ModelError: no such directory, or no model of this kind in it.
    """
    check_directory(pretrained, "config.json")
    return load_whole(
        AutoModelForImageTextToText,
        pretrained,
        "image-text-to-text model",
        dtype=getattr(torch, dtype),
        attn_implementation=attn_implementation,
    )


def load_whole(kind: Any, pretrained: str, name: str, **options: Any) -> PreTrainedModel:
    """Load a model, and refuse a checkpoint that leaves weights as they were made, at random.

    Args:
        kind: a class of transformers with `from_pretrained`.
        pretrained: a directory, or a name on the Hugging Face hub.
        name: what kind of model is wanted, as an error message should say.
        options: of `from_pretrained`.

    Raises:
        ModelError: there is no model of this kind, or weights are missing: how many, and the first.
    """
    try:
        model, info = kind.from_pretrained(
            pretrained,
            trust_remote_code=False,  # by default transformers asks on the terminal
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        raise ModelError(f"{pretrained}: no {name}: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):  # without those that are tied to others
        others = sorted(info["unexpected_keys"])
        instead = f", and {listed(others)} in it are not the model's" if others else ""
        raise ModelError(
            f"{pretrained}: {listed(missing)} are missing from the checkpoint{instead}; "
            "it is damaged, or of another kind of model"
        )
    loaded: PreTrainedModel = model
    return loaded


def check_directory(pretrained: str, *files: str) -> None:
    """Refuse what looks like a local checkpoint but is none, before a hub is asked for it.

    Raises:
        ModelError: naming the directory, or the file that it lacks.
    """
    path = Path(pretrained)
    if path.is_dir():
        if not any((path / file).is_file() for file in files):
            if (path / "adapter_config.json").is_file():
                raise ModelError(
                    f"{pretrained}: adapters without their model; `coincide export {pretrained} "
                    "--output=MODEL` folds them into their base, and MODEL can be given here"
                )
            lacks = " or ".join(files)
            raise ModelError(f"{pretrained}: a directory without a model (it has no {lacks})")
    elif (
        path.exists() or path.is_absolute() or len(path.parts) != 2 or path.parts[0] in (".", "..")
    ):
        raise ModelError(f"{pretrained}: no such checkpoint directory")
    else:
        check_hub(pretrained)


def resolved(pretrained: str) -> Path:
    """The directory of a checkpoint: itself, or where the local hub cache has that name."""
    directory = Path(pretrained)
    if directory.is_dir():
        return directory
    return cached(pretrained)


def checkpoint_fingerprint(pretrained: str) -> str:
    """A digest of everything in a checkpoint that its numbers depend on.

    Args:
        pretrained: a directory, or the name of a model that is already in the local hub cache.

    Returns:
        32 hexadecimal digits over names and contents of the weights, configs and tokenizer files.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(resolved(pretrained).iterdir()):
        if path.suffix in {".json", ".safetensors", ".bin", ".model", ".jinja", ".txt"}:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, hashlib.blake2b).digest()
            digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


class Saves(Protocol):
    """A model, a processor, and whatever else writes itself into a checkpoint directory."""

    def save_pretrained(self, save_directory: Path, /) -> object:
        """Writes files into a directory that is there."""


def check_output(directory: str | Path, *read: str | None) -> None:
    """Refuse to write a checkpoint where anything but another checkpoint would be lost.

    Args:
        directory: where it belongs.
        read: what it is made from; names on the hub, and None, count for nothing.

    Raises:
        FileError: something else is there, or what the checkpoint is made from.
    """
    check_replaced(directory, "config.json", "adapter_config.json")
    place = Path(directory).expanduser().resolve()
    for name in read:
        if name is not None and Path(name).exists() and Path(name).resolve().is_relative_to(place):
            raise FileError(
                f"{directory}: writing there would replace {name}, which is read; name another "
                "folder"
            )


def save_checkpoint(directory: str | Path, *parts: Saves) -> None:
    """Write a model, its processor and so on as one checkpoint directory, whole or not at all.

    Args:
        directory: where; a checkpoint that is there is replaced.
        parts: what goes into it.

    Raises:
        FileError: it can't be written, or something else is there.
    """
    check_output(directory)
    with beside(directory) as aside:
        for part in parts:
            part.save_pretrained(aside)
        if (aside / "config.json").is_file() and not write_older(aside):
            log.warning("%s: load it with transformers>=5 only; version 4 misreads it", directory)


@contextmanager
def quietly() -> Iterator[None]:
    """While open, transformers says nothing of old spellings and of what is not installed."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def listed(names: Sequence[str]) -> str:
    """How many names there are, and the first of them, for an error message."""
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} weights ({', '.join(names[:3])}{more})"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

"""The Hugging Face hub, where it can't be reached: what is cached here, at once, or one line."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlparse

from huggingface_hub import constants, snapshot_download

from coincide_pl.errors import ModelError

SECONDS = 3
"""That a server may take to answer."""


@cache
def reachable(host: str, port: int) -> bool:
    """Whether a server answers."""
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError:
        return False
    return True


def check_hub(name: str) -> None:
    """Uses the local cache alone where the hub does not answer, which is tried for minutes else.

    Args:
        name: of a model on the hub.

    Raises:
        ModelError: the hub does not answer, and the model is not in the cache.
    """
    server = urlparse(constants.ENDPOINT)
    host = server.hostname or "huggingface.co"
    port = server.port or (443 if server.scheme == "https" else 80)
    proxy = any(os.environ.get(f"{scheme}_proxy".upper()) for scheme in ("https", "http", "all"))
    if constants.HF_HUB_OFFLINE or proxy or reachable(host, port):
        return
    constants.HF_HUB_OFFLINE = True
    try:
        cached(name)
    except OSError as error:
        raise ModelError(
            f"{name}: no such checkpoint directory, and {host} does not answer: connect, or name "
            "the directory of a copy"
        ) from error


def cached(name: str) -> Path:
    """Where the local cache has a model of the hub.

    Raises:
        OSError: it has not.
    """
    return Path(snapshot_download(name, local_files_only=True))

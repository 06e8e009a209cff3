"""Tiny real things that many tests use."""

import pytest

from coincide_pl.models.tiny import tiny_llava


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A checkpoint of a tiny LLaVA with random weights."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llava(str(path), hidden_size=32, vision_hidden_size=32, vision_num_layers=2, image_size=32)
    return str(path)

"""The originals' small checkpoints, converted."""

from pathlib import Path

import pytest

from coincide_pl.models.conversion.convert import convert

PARITY = Path(__file__).parents[1] / "data" / "parity"
LLAVA, TINY = PARITY / "llava15", PARITY / "tinyllava"


@pytest.fixture(scope="session")
def llava15(tmp_path_factory):
    out = tmp_path_factory.mktemp("convert") / "llava15"
    convert(str(LLAVA / "llava-v1.5-tiny"), str(out))
    return str(out)


@pytest.fixture(scope="session")
def tinyllava(tmp_path_factory):
    out = tmp_path_factory.mktemp("convert") / "tinyllava"
    convert(str(TINY / "tinyllava-2.0b-tiny"), str(out))
    return str(out)

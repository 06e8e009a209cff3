"""Lost if these fail: the right records and pixels, or one line that names what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from inputs import IMAGES, RECORDS, write_image
from listing import README, inputs, with_part

from coincide_pl.data.images import open_image
from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import DataError


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case.name)
def test_records(case, tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(case.content)
    reader = LlavaJson(str(path))
    if case.good is not None:
        records = list(reader)
        assert case.good(records)
        assert list(reader.records(tmp_path / "cache")) == records
        return
    with pytest.raises(DataError) as error:
        reader.records(tmp_path / "cache")
    message = str(error.value)
    assert str(path) in message
    assert case.said in message
    assert message.isprintable()
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case.name)
def test_images(case, tmp_path):
    name = write_image(case, tmp_path)
    if case.good is not None:
        image = open_image(tmp_path, name)
        assert image.mode == "RGB"
        np.testing.assert_allclose(image.getpixel((0, 0)), case.good, atol=4)
        return
    with pytest.raises(DataError) as error:
        open_image(tmp_path, name)
    assert f"{tmp_path}/{name}" in str(error.value)
    assert case.said in str(error.value)


def test_the_list_in_the_readme_is_what_is_tested():
    text = README.read_text()
    assert with_part(text, "inputs", inputs()) == text
    assert len(RECORDS) + len(IMAGES) >= 40

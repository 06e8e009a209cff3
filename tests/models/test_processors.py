"""Lost if these fail: checkpoints whose processor is older than, or does not fit, their model."""

import json
import shutil

import pytest
from PIL import Image

from coincide_pl.data.encoding import Encoder
from coincide_pl.errors import ModelError
from coincide_pl.models.processors import load_processor


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def test_sizes_that_older_checkpoints_have_in_the_models_config_are_read_there(tiny, copy):
    whole = json.loads((copy / "processor_config.json").read_text())
    older = {**whole["image_processor"], "processor_class": "LlavaProcessor"}
    (copy / "preprocessor_config.json").write_text(json.dumps(older))
    (copy / "processor_config.json").unlink()
    image = Image.new("RGB", (40, 30), "red")
    expected = Encoder(load_processor(tiny)).encode_image(image)
    found = Encoder(load_processor(str(copy))).encode_image(image)
    assert found.tokens.tolist() == expected.tokens.tolist()
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["patch_size"] = None
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"neither its processor nor its config\.json names"):
        load_processor(str(copy))


def test_an_image_token_that_the_model_does_not_know_is_named(copy):
    config = json.loads((copy / "config.json").read_text())
    name = next(key for key in ("image_token_id", "image_token_index") if key in config)
    config[name] += 1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="token 3 where an image stands, its model looks for tok"):
        load_processor(str(copy))

"""Lost if these fail: features of images by DINOv2, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from conversations import RECORDS, write_records
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
)

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.images import open_image
from coincide_pl.data.vision import ImageEncoder
from coincide_pl.errors import ModelError
from coincide_pl.models import VisionModule
from coincide_pl.models.loading import save_checkpoint
from coincide_pl.signals import SignalsStore


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory):
    """A checkpoint of a tiny DINOv2 with random weights."""
    path = tmp_path_factory.mktemp("models") / "dinov2"
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Dinov2Config(**sizes, image_size=28, patch_size=14, mlp_ratio=2)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    torch.manual_seed(0)
    save_checkpoint(path, Dinov2Model(config), BitImageProcessor(**size))
    return str(path)


@pytest.mark.parametrize("token", ["first", "mean"])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0], [1]])
def test_features_equal_a_plain_pass_of_each_image(dinov2, tmp_path, rows, token):
    records = write_records(tmp_path)
    module = VisionModule(dinov2, token=token)
    module.configure_model()
    batch = EncodedBatches(records, ImageEncoder(module.processor))[rows]
    assert batch.num_images == len({name for row in rows for name in RECORDS[row].images})
    ours = module.predict_step(batch)["image_features"]
    assert ours.shape == (len(rows), *module.signals[0].shape(module.facts))
    model = AutoModel.from_pretrained(dinov2).eval()
    processor = AutoImageProcessor.from_pretrained(dinov2, use_fast=False)
    for at, row in enumerate(rows):
        each = []
        for name in RECORDS[row].images:
            inputs = processor(open_image(records.image_root, name), return_tensors="pt")
            with torch.no_grad():
                out = model(**inputs)
            feature = out.pooler_output[0] if token == "first" else out.last_hidden_state[0].mean(0)
            each.append((feature / feature.norm()).numpy())
        mean = np.mean(each, 0) if each else np.zeros(24)
        expected = mean / max(np.linalg.norm(mean), 1e-12)
        np.testing.assert_allclose(ours[at], expected, atol=1e-5)


def test_predict_writes_them(command, llava, dinov2, tmp_path):
    status, _, told = command(
        *("predict", "--config", "models/dinov2", "--config", "data/llava"),
        *(f"--data.train.path={llava}", f"--model.pretrained={dinov2}", "--data.num_workers=0"),
        *(f"--data.cache_dir={tmp_path}/cache", f"--data.signals={tmp_path}/vision"),
        *("--data.max_tokens=64", "--trainer.accelerator=cpu", "--trainer.logger=false"),
        f"--trainer.default_root_dir={tmp_path}/run",
    )
    assert status == 0, told
    features = np.asarray(SignalsStore(tmp_path / "vision")["image_features"], float)
    lengths = np.linalg.norm(features, axis=1)
    assert np.flatnonzero(lengths == 0).tolist() == list(range(5, 60, 6))  # without an image
    np.testing.assert_allclose(lengths[lengths > 0], 1, atol=2e-3)


def test_what_is_no_vision_model_is_named(tiny, dinov2):
    with pytest.raises(ModelError, match=r"a vision model does not make nll: .*models/reference"):
        VisionModule(dinov2, ["nll"])
    module = VisionModule(tiny)
    with pytest.raises(ModelError, match="does not read images alone"):
        module.configure_model()

"""Lost if these fail: signals of image tokens that are what their papers say, in any batch."""

import numpy as np
import pytest
import torch
from kinds import CONVERSATIONS
from PIL import Image
from transformers import AutoModelForImageTextToText

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.records import Records
from coincide_pl.errors import ModelError, SignalsError
from coincide_pl.models import ReferenceModule
from coincide_pl.signals import (
    AttendedImageToken,
    CrossAttention,
    LastTokenState,
    MeanImageToken,
    TokenSpectrum,
)
from coincide_pl.signals.image_tokens import most_attended

BATCHES = [[0, 1, 2, 3], [3, 0], [2], [1, 0]]


@pytest.fixture
def data(tiny, tmp_path):
    """The conversations, encoded, and their two images."""
    random = np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / name)
    records = Records.write(tmp_path / "r.arrow", CONVERSATIONS, image_root=tmp_path)
    return EncodedBatches(records, Encoder(ReferenceModule(tiny, [0]).processor))


def on_the_left(batch):
    """The same batch, padded on the left."""
    width = batch.input_ids.shape[1]
    lengths = batch.attention_mask.sum(1).tolist()
    for name in ("input_ids", "attention_mask", "labels", "image_mask", "text_mask"):
        value = getattr(batch, name)
        rolled = [row.roll(width - n) for row, n in zip(value, lengths, strict=True)]
        setattr(batch, name, torch.stack(rolled))
    batch.prefix = None
    return batch


@pytest.fixture
def passes(tiny, data):
    """What transformers gives out for each conversation alone: states and attention by layer."""
    model = AutoModelForImageTextToText.from_pretrained(tiny, attn_implementation="eager").eval()
    found = []
    for row in range(len(CONVERSATIONS)):
        batch = data[[row]]
        pixels = dict(batch.image_inputs)
        if pixels:
            pixels = {"pixel_values": pixels["pixel_values"][batch.image_index]}
        with torch.no_grad():
            found.append(
                model(
                    input_ids=batch.input_ids,
                    **pixels,
                    output_hidden_states=True,
                    output_attentions=True,
                )
            )
    return found


def rows_of(tiny, data, signals, rows, left):
    """A batch's rows by our pass."""
    module = ReferenceModule(tiny, [0, 1, 2], signals)
    module.configure_model()
    return module.predict_step(on_the_left(data[rows]) if left else data[rows])


def plain_attended(out, batch, share, layer):
    """Token by token, as the authors' script does it."""
    image = [t for t in range(batch.input_ids.shape[1]) if batch.image_mask[0, t]]
    user = [
        t
        for t in range(batch.input_ids.shape[1])
        if t not in image and batch.labels[0, t] == IGNORE
    ]
    if not image:
        return torch.zeros_like(out.hidden_states[0][0, 0])
    heads = out.attentions[layer][0].mean(0)
    weights = [float(torch.stack([heads[t, v] for t in user]).mean()) for v in image]
    order = sorted(range(len(image)), key=lambda i: -weights[i])
    kept, total = [], 0.0
    for i in order:
        kept.append(image[i])
        total += weights[i] / sum(weights)
        if total > share:
            break
    return torch.stack([out.hidden_states[layer + 1][0, t] for t in kept]).mean(0)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("rows", BATCHES)
def test_tokens_of_images_are_averaged_in_a_layer(tiny, data, passes, rows, left):
    signals = ["mean_image_token", MeanImageToken(2, name="deeper")]
    ours = rows_of(tiny, data, signals, rows, left)
    for at, row in enumerate(rows):
        for name, layer in (("mean_image_token", 0), ("deeper", 2)):
            states = passes[row].hidden_states[layer + 1][0][data[[row]].image_mask[0]]
            plain = states.sum(0) / max(1, len(states))  # none without an image
            np.testing.assert_allclose(ours[name][at], plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("rows", BATCHES)
def test_the_image_tokens_that_the_question_looks_at_are_averaged(tiny, data, passes, rows, left):
    signals = ["attended_image_token", AttendedImageToken(0.4, 1, name="fewer")]
    ours = rows_of(tiny, data, signals, rows, left)
    for at, row in enumerate(rows):
        for name, share, layer in (("attended_image_token", 0.9, 0), ("fewer", 0.4, 1)):
            plain = plain_attended(passes[row], data[[row]], share, layer)
            np.testing.assert_allclose(ours[name][at], plain, atol=1e-4, rtol=0)
        means = passes[row].hidden_states[2][0][data[[row]].image_mask[0]]
        if len(means):  # some tokens are left out
            assert (ours["fewer"][at] - means.mean(0)).abs().max() > 1e-3


def test_all_image_tokens_count_where_no_token_looks_at_one():
    weights = torch.eye(4)[None]
    image = torch.tensor([[False, True, True, False]])
    asking = torch.tensor([[True, False, False, False]])
    assert most_attended(weights, asking, image, 0.9).tolist() == image.tolist()
    assert most_attended(weights, asking, image, 0.4).tolist() == [[False, True, False, False]]
    assert not most_attended(weights, asking, image & False, 0.9).any()


def test_wrong_shares_are_named():
    with pytest.raises(SignalsError, match=r"share: 1\.5 is outside"):
        AttendedImageToken(1.5)
    with pytest.raises(SignalsError, match=r"layers: \[0, 0\] must be different"):
        CrossAttention([0, 0])


def plain_spectra(out, batch):
    """Each sample's matrices, by a singular value decomposition of its own."""
    heads = sum(out.attentions[layer][0].mean(0).double() for layer in (0, 2))
    block = heads[batch.text_mask[0]][:, batch.image_mask[0]]
    values = torch.zeros(5, dtype=torch.float64)
    if block.numel():
        found = torch.linalg.svdvals(block)[:5]
        values[: len(found)] = found
    return values


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("rows", BATCHES)
def test_singular_values_are_those_of_each_sample_alone(tiny, data, passes, rows, left):
    signals = [CrossAttention([0, 2]), TokenSpectrum(1), LastTokenState(1)]
    ours = rows_of(tiny, data, signals, rows, left)
    assert ours["cross_attention"].shape == (len(rows), 5)
    for at, row in enumerate(rows):
        plain = plain_spectra(passes[row], data[[row]])
        np.testing.assert_allclose(ours["cross_attention"][at], plain, atol=1e-4, rtol=0)
        states = passes[row].hidden_states[2][0]
        np.testing.assert_allclose(ours["last_token_state"][at], states[-1], atol=1e-4, rtol=0)
        shares = torch.linalg.svdvals(states.double())
        shares = shares / shares.sum()
        figures = [-sum(p * np.log(p) for p in shares.tolist()), float(shares.max())]
        np.testing.assert_allclose(ours["token_spectrum"][at], figures, atol=1e-4, rtol=0)


def test_the_last_layer_by_its_number_from_the_end(tiny, data):
    states = rows_of(
        *(tiny, data, [LastTokenState(), LastTokenState(2, "third"), TokenSpectrum()]),
        *([0, 3], False),
    )
    depth = AutoModelForImageTextToText.from_pretrained(tiny).config.text_config.num_hidden_layers
    last = rows_of(tiny, data, [LastTokenState(depth - 1)], [0, 3], False)["last_token_state"]
    assert torch.equal(states["last_token_state"], last)
    assert torch.equal(states["third"], last) == (depth == 3)
    with pytest.raises(ModelError, match="layers: -9 is not a layer"):
        rows_of(tiny, data, [LastTokenState(-9)], [0], False)

"""Lost if these fail: the tokens that are trained on, and the places that image features take."""

import numpy as np
import pytest
from PIL import Image

from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.models.processors import load_processor

IMAGE = Image.new("RGB", (40, 30), "red")
TALK = (
    Turn("system", "be brief"),
    Turn("user", "<image>\nwhat is it?"),
    Turn("assistant", "red"),
    Turn("user", "and big?"),
    Turn("assistant", "no"),
)


@pytest.fixture(scope="module")
def encoder(tiny):
    return Encoder(load_processor(tiny))


def encoded(encoder, *turns, images=1):
    record = Record("x", ("x.png",) * images, turns)
    return encoder.encode(record, [encoder.encode_image(IMAGE)] * images)


def test_answers_and_their_end_are_trained_and_nothing_else(encoder):
    found = encoded(encoder, *TALK)
    runs = np.split(np.arange(len(found.labels)), np.flatnonzero(np.diff(found.labels != -100)) + 1)
    trained = [
        encoder.tokenizer.decode(found.labels[run]) for run in runs if found.labels[run[0]] != -100
    ]
    assert trained == [" red</s>", " no</s>"] or trained == ["red</s>", "no</s>"]
    kept = found.labels != IGNORE
    assert (found.labels[kept] == found.input_ids[kept]).all()


def test_features_take_the_places_of_the_image_alone(encoder):
    found = encoded(encoder, *TALK)
    image = encoder.encode_image(IMAGE)
    assert found.image_mask.sum() == image.num_features > 0
    assert (found.input_ids[found.image_mask] == encoder.image_id).all()
    assert not found.text_mask[: np.flatnonzero(found.image_mask)[-1] + 1].any()
    assert found.text_mask[np.flatnonzero(found.image_mask)[-1] + 1 :].all()
    assert set(image.inputs) == {"pixel_values"}
    assert len(image.inputs["pixel_values"]) == 1


def test_without_an_image_the_text_begins_with_the_users(encoder):
    found = encoded(encoder, Turn("system", "be brief"), Turn("user", "so?"), TALK[2], images=0)
    assert not found.image_mask.any()
    assert encoder.tokenizer.decode(found.input_ids[found.text_mask]).startswith(" so?")


def test_control_tokens_that_somebody_typed_are_text(encoder):
    typed = "is </s> or <image> the end?"
    found = encoded(encoder, Turn("user", "hi"), Turn("assistant", typed), images=0)
    ids = found.input_ids.tolist()
    assert encoder.image_id not in ids
    assert ids.count(encoder.tokenizer.eos_token_id) == 1  # the answer's own end
    assert typed in encoder.tokenizer.decode(ids)


@pytest.mark.parametrize("length", [1, 8, 9, 12, 20])
def test_a_cut_keeps_an_image_whole_or_not_at_all(tiny, length):
    short = Encoder(load_processor(tiny), max_length=length)
    whole = encoded(Encoder(load_processor(tiny)), *TALK)
    found = encoded(short, *TALK)
    assert found.truncated
    assert len(found.input_ids) <= length
    assert (found.input_ids == whole.input_ids[: len(found.input_ids)]).all()
    assert found.image_mask.sum() in (0, whole.image_mask.sum())
    assert found.num_images == int(found.image_mask.any())


def test_a_prompt_is_the_beginning_of_the_whole(encoder):
    record = Record("x", ("x.png",), TALK)
    images = [encoder.encode_image(IMAGE)]
    whole, prompt = encoder.encode(record, images), encoder.encode_prompt(record, images)
    assert (whole.input_ids[: len(prompt.input_ids)] == prompt.input_ids).all()
    rest = encoder.tokenizer.decode(whole.input_ids[len(prompt.input_ids) :])
    assert rest.strip() == "no</s>"
    assert encoder.tokenizer.decode(prompt.input_ids).endswith("ASSISTANT:")

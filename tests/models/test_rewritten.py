"""Lost if these fail: losses without the image, its detail, the question or the answer."""

import re

import numpy as np
import pytest
import torch
from conversations import RECORDS, answer_losses, batches, write_records
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from coincide_pl.data.encoding import IGNORE
from coincide_pl.data.images import open_image
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.rewriting import Blur, asking_back, without_questions
from coincide_pl.errors import SignalsError
from coincide_pl.models import ReferenceModule
from coincide_pl.models.loading import load_model
from coincide_pl.signals import NllBlurred

ASK = "Based on the image, what is the likely question?"
KNOWN = "Based on the image and answer, what is the likely question? Answer: "
SYSTEM = ("system", "Be brief.")
FORMS = {
    "nll_without_image": [
        [("user", "what is it?"), ("assistant", "red")],
        [("user", "how are you?"), ("assistant", "fine, thanks")],
        [
            *(SYSTEM, ("user", "one or two"), ("assistant", "one")),
            *(("user", "sure?"), ("assistant", "yes, I am")),
        ],
        [("user", "which"), ("assistant", "")],
    ],
    "nll_without_question": [
        [("user", "<image>"), ("assistant", "red")],
        [("user", ""), ("assistant", "fine, thanks")],
        [("user", "<image><image>"), ("assistant", "one yes, I am")],
        [("user", "<image>"), ("assistant", "")],
    ],
    "nll_question": [
        [("user", f"<image>\n{ASK}"), ("assistant", "what is it?")],
        [("user", ASK), ("assistant", "how are you?")],
        [
            *(SYSTEM, ("user", f"<image>\n<image>\n{ASK}"), ("assistant", "one or two")),
            *(("user", ASK), ("assistant", "sure?")),
        ],
        [("user", f"<image>\n{ASK}"), ("assistant", "which")],
    ],
    "nll_question_by_answer": [
        [("user", f"<image>\n{KNOWN}red"), ("assistant", "what is it?")],
        [("user", f"{KNOWN}fine, thanks"), ("assistant", "how are you?")],
        [
            *(SYSTEM, ("user", f"<image>\n<image>\n{KNOWN}one"), ("assistant", "one or two")),
            *(("user", f"{KNOWN}yes, I am"), ("assistant", "sure?")),
        ],
        [("user", f"<image>\n{KNOWN}"), ("assistant", "which")],
    ],
}
NAMES = ["nll", *FORMS, "nll_blurred", "instruction"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def module(tiny):
    module = ReferenceModule(tiny, None, NAMES)
    module.configure_model()
    return module


def written(processor, turns, images):
    """One conversation as transformers prepares it: the model's inputs."""
    messages = []
    for role, text in turns:
        head, *tails = re.split("<image>\n?", text)  # the template says what ends an image
        parts = [{"type": "text", "text": head}] * bool(head)
        for tail in tails:
            parts += [{"type": "image"}, *([{"type": "text", "text": tail}] * bool(tail))]
        messages.append({"role": role, "content": parts or [{"type": "text", "text": ""}]})
    text = processor.apply_chat_template(messages, tokenize=False)
    return processor(text=[text], images=images or None, return_tensors="pt")


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0], [1]])
def test_losses_equal_a_plain_pass_over_the_conversation_written_out(tiny, module, records, rows):
    batch = batches(module, records)[rows]
    ours = module.predict_step(batch)
    model = AutoModelForImageTextToText.from_pretrained(tiny).eval()
    processor = AutoProcessor.from_pretrained(tiny)
    signals = {signal.name: signal for signal in module.signals}
    for at, row in enumerate(rows):
        shown = [open_image(records.image_root, name) for name in RECORDS[row].images]
        for name, forms in FORMS.items():
            part = batch.rewritten[signals[name].form]
            length = int(part.attention_mask[at].sum())
            inputs = written(processor, forms[row], shown if "without_image" not in name else [])
            assert inputs["input_ids"][0].tolist() == part.input_ids[at, :length].tolist(), name
            losses = answer_losses(model, inputs, part.labels[at, :length])
            torch.testing.assert_close(
                ours[name][at], losses.mean().float(), atol=1e-4, rtol=1e-4, msg=name
            )


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0]])
def test_blurred_images_go_through_the_processor_as_others_do(tiny, module, records, rows):
    batch = batches(module, records)[rows]
    ours = module.predict_step(batch)["nll_blurred"]
    model = AutoModelForImageTextToText.from_pretrained(tiny).eval()
    processor = AutoProcessor.from_pretrained(tiny)
    for at, row in enumerate(rows):
        length = int(batch.attention_mask[at].sum())
        inputs = {"input_ids": batch.input_ids[at : at + 1, :length]}
        if RECORDS[row].images:
            shown = [Blur()(open_image(records.image_root, n)) for n in RECORDS[row].images]
            inputs |= processor.image_processor(shown, return_tensors="pt")
        losses = answer_losses(model, inputs, batch.labels[at, :length])
        torch.testing.assert_close(ours[at], losses.mean().float(), atol=1e-4, rtol=1e-4)


def test_a_sample_without_an_image_loses_nothing_by_it(module, records):
    ours = module.predict_step(batches(module, records)[[0, 1, 2, 3]])
    for name in ("nll_without_image", "nll_blurred"):
        assert ours[name][1] == ours["nll"][1]
        assert (ours[name][[0, 2]] != ours["nll"][[0, 2]]).all()


def test_a_cut_answer_is_compared_by_the_tokens_that_are_left(tiny, module, records):
    """Without the image more of an answer fits in: those tokens would count on one side alone."""
    whole = batches(module, records)[[2]]
    length = whole.input_ids.shape[1] - 3
    batch = batches(module, records, length)[[2]]
    kept = int((batch.labels != IGNORE).sum())
    text = batch.rewritten[module.rewritings[0]]
    assert 0 < kept < int((text.labels != IGNORE).sum())
    ours = module.predict_step(batch)["nll_without_image"]
    losses = answer_losses(load_model(tiny).eval(), {"input_ids": text.input_ids}, text.labels[0])
    torch.testing.assert_close(ours[0], losses[:kept].mean().float(), atol=1e-4, rtol=1e-4)
    none = module.predict_step(batches(module, records, 20)[[2]])["nll_without_image"]
    assert none.tolist() == [0]


def test_the_instruction_is_the_first_question_and_knows_no_answer(tiny, module, records):
    rows = [0, 1, 2, 3]
    batch = batches(module, records)[rows]
    ours = module.predict_step(batch)["instruction"]
    model = AutoModelForImageTextToText.from_pretrained(tiny).eval()
    text = batch.rewritten[module.rewritings[0]]
    for row in rows:
        answers = (text.labels[row] != IGNORE).nonzero()[:, 0].tolist()
        stop = [*answers, int(text.attention_mask[row].sum())][0]
        ids = text.input_ids[row : row + 1, :stop]
        said = module.processor.tokenizer.decode(ids[0])
        question = FORMS["nll_without_image"][row][1 if row == 2 else 0][1]
        assert question in said
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        expected = states[text.text_mask[row, :stop]].mean(0)
        torch.testing.assert_close(ours[row], expected, atol=1e-4, rtol=1e-4)


def gaussian(pixels, side):
    """Each pixel of a mirrored picture, summed in a loop."""
    offsets = np.arange(side) - side // 2
    weights = np.exp(-(offsets**2) / (2 * (side - 1) ** 2))
    weights /= weights.sum()
    height, width = pixels.shape[:2]

    def mirrored(at, size):
        at %= 2 * size - 2
        return min(at, 2 * size - 2 - at)

    out = np.zeros(pixels.shape)
    for y in range(height):
        for x in range(width):
            for i, down in enumerate(offsets):
                for j, across in enumerate(offsets):
                    place = mirrored(y + down, height), mirrored(x + across, width)
                    out[y, x] += weights[i] * weights[j] * pixels[place]
    return out


@pytest.mark.parametrize("side", [3, 9])
def test_the_blur_is_a_gaussian_over_a_mirrored_square(side):
    """As OpenCV's GaussianBlur has it; the square may be wider than the picture."""
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    found = np.asarray(Blur(side)(Image.fromarray(pixels)), float)
    assert np.abs(found - gaussian(pixels, side)).max() < 0.51


def test_larger_pictures_are_blurred_by_larger_squares():
    for width, side in ((499, 101), (500, 201), (800, 301)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (2, width, 3), np.uint8))
        assert np.array_equal(np.asarray(Blur()(image)), np.asarray(Blur(side)(image)))
    assert NllBlurred(51, name="mild").arguments == {"side": 51}
    with pytest.raises(SignalsError, match="side: 50 must be an odd number of pixels"):
        NllBlurred(50)


def test_images_stay_with_the_turn_that_shows_them():
    turns = (
        *(Turn("assistant", "hello"), Turn("user", "<image>\nfirst"), Turn("assistant", "1")),
        *(Turn("user", "a"), Turn("user", "b <image>\n"), Turn("assistant", "2")),
        Turn("user", "<image>\nlast"),
    )
    found = asking_back(Record("x", ("0.png", "1.png", "2.png"), turns))
    assert found.images == ("0.png", "1.png")
    assert [turn.text for turn in found.turns] == [
        *(ASK, "", f"<image>\n{ASK}", "first", f"<image>\n{ASK}", "a\nb "),
    ]
    assert without_questions(Record("x", ("0.png",), turns)).turns == (
        Turn("user", "<image>"),
        Turn("assistant", "hello 1 2"),
    )

"""Lost if these fail: what is trained on in a batch, and which image is shown at which mark."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from coincide_pl.data.collation import (
    EncodedBatches,
    collate,
    shared_beginnings,
    stacked,
    targets_of,
)
from coincide_pl.data.encoding import IGNORE, EncodedImage, Encoder, Encoding
from coincide_pl.data.readers import LlavaJson
from coincide_pl.data.record import UNNAMED, Record, Turn
from coincide_pl.errors import DataError, ModelError
from coincide_pl.models.processors import load_processor


def encoding(ids, labels=None, image=(), num_images=0):
    """A conversation of these tokens; image features at the places `image`."""
    ids = np.array(ids, np.int64)
    mask = np.isin(np.arange(len(ids)), image)
    labels = np.full(len(ids), IGNORE) if labels is None else np.array(labels, np.int64)
    return Encoding(ids, labels, mask, ~mask, num_images, False)


def picture(value, *shape):
    pixels = torch.full((1, 3, *(shape or (2, 2))), float(value))
    return EncodedImage(np.array([9, 9]), "", "", 2, {"pixel_values": pixels})


def record(name, *images):
    return Record(name, images, (Turn("user", "?"), Turn("assistant", f"answer {name}")), None)


def batch_of(left=False):
    encodings = [
        encoding([1, 9, 9, 5, 6], [IGNORE, IGNORE, IGNORE, 5, 6], (1, 2), 1),
        encoding([1, 7], [IGNORE, 7]),
        encoding([1, 9, 9, 9, 9, 8], image=(1, 2, 3, 4), num_images=2),
    ]
    images = {"a": picture(1), "b": picture(2)}
    records = [record("x", "a"), record("y"), record("z", "b", "a")]
    return collate([4, 0, 2], records, encodings, images, ["a", "b", "a"], 0, left)


def test_rows_are_padded_and_nothing_is_trained_there():
    batch = batch_of()
    assert batch.input_ids.tolist() == [[1, 9, 9, 5, 6, 0], [1, 7, 0, 0, 0, 0], [1, 9, 9, 9, 9, 8]]
    assert batch.attention_mask.sum(1).tolist() == [5, 2, 6]
    assert batch.labels[1].tolist() == [IGNORE, 7] + [IGNORE] * 4
    left = batch_of(left=True)
    assert left.input_ids[1].tolist() == [0, 0, 0, 0, 1, 7]
    assert left.attention_mask[:, -1].all()
    assert left.image_mask[0].tolist() == [False, False, True, True, False, False]


def test_each_distinct_image_is_there_once_and_shown_where_it_was():
    batch = batch_of()
    assert batch.num_images == 2
    assert batch.image_inputs["pixel_values"][:, 0, 0, 0].tolist() == [1, 2]
    assert batch.image_order == batch.image_index.tolist() == [0, 1, 0]
    assert batch.image_counts.tolist() == [1, 0, 2]
    assert batch.image_tokens == [2, 2]
    assert (batch.sources, batch.answers[2]) == ([UNNAMED] * 3, "answer z")
    assert batch.num_unlabeled == 1


def test_targets_are_the_tokens_that_follow():
    labels = torch.tensor([[IGNORE, IGNORE, 5, 6], [IGNORE, 7, IGNORE, IGNORE]])
    columns, labeled, targets = targets_of(labels)
    assert columns.tolist() == [0, 1, 2]  # the places before some labeled token
    pairs = [(place // 3, columns[place % 3].item()) for place in labeled.tolist()]
    assert pairs == [(0, 1), (0, 2), (1, 0)]
    assert targets.tolist() == [5, 6, 7]


def test_beginnings_are_shared_only_where_they_are_the_same():
    same = [encoding([1, 9, 9, tail, 4], image=(1, 2), num_images=1) for tail in (5, 6)]
    prefix, lengths = shared_beginnings(same, ["a", "a"], False)
    assert prefix.tolist() == [0, 0]
    assert lengths.tolist() == [3]
    assert shared_beginnings(same, ["a", "b"], False) == (None, None)  # other images
    assert shared_beginnings(same, ["a", "a"], True) == (None, None)  # padded on the left
    several = [*same, encoding([1, 2])]
    assert shared_beginnings(several, ["a", "a"], False) == (None, None)  # one has no image


def test_smaller_images_are_filled_up_with_zeros():
    out = stacked("pixel_values", [picture(1, 2, 3).inputs, picture(2, 4, 1).inputs])
    assert out.shape == (2, 3, 4, 3)
    assert out[0].sum() == 3 * 2 * 3
    assert out[1].sum() == 2 * 3 * 4
    with pytest.raises(DataError, match="images of one batch give 'x' of different kinds"):
        stacked("x", [{"x": torch.zeros(1, 2)}, {}])


def test_prompts_end_where_the_answer_begins(tiny, llava, tmp_path):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    encoder = Encoder(load_processor(tiny))
    whole, prompts = EncodedBatches(records, encoder), EncodedBatches(records, encoder, True)
    for row in range(6):
        full, prompt = whole[[row]], prompts[[row]]
        text = encoder.tokenizer.decode(full.input_ids[0])
        asked = encoder.tokenizer.decode(prompt.input_ids[0])
        answer = records[row].turns[-1].text
        assert text == f"{asked} {answer}</s>"
        assert asked.endswith("ASSISTANT:")
        assert encoder.tokenizer.decode(full.labels[full.labels != IGNORE]).endswith(
            f" {answer}</s>"
        )
    batch = prompts[[0, 1, 2]]
    assert batch.attention_mask[:, -1].all()  # padded on the left


def test_kept_images_change_nothing(tiny, llava, tmp_path, monkeypatch):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    encoder = Encoder(load_processor(tiny))
    plain, keeping = (
        EncodedBatches(records, encoder),
        EncodedBatches(records, encoder, False, 2**20),
    )
    first = keeping[[0, 1]]
    monkeypatch.setattr(Encoder, "encode_image", lambda *_: pytest.fail("opened again"))
    second = keeping[[0, 1]]
    monkeypatch.undo()
    for batch in (first, second):
        expected = plain[[0, 1]]
        assert (batch.image_inputs["pixel_values"] == expected.image_inputs["pixel_values"]).all()
    small = EncodedBatches(records, encoder, False, 3 * 32 * 32 * 4 + 64)
    assert len([small[[row]] for row in range(4)]) == 4
    assert len(small._kept) == 1


def test_an_image_that_the_processor_refuses_is_named_with_its_record(tiny, llava, tmp_path):
    encoder = Encoder(load_processor(tiny))

    def refuse(image):
        raise ValueError("absolute aspect ratio must be\n smaller than 2")

    encoder.encode_image = refuse
    batches = EncodedBatches(LlavaJson(str(llava)).records(tmp_path / "cache"), encoder)
    with pytest.raises(DataError) as error:
        batches[[2]]
    assert str(error.value) == (
        f"{llava}: record 2 (id 'r2'): 'image': {llava.parent}/coco/2.png: the processor refuses "
        "it (30 by 26 pixels: absolute aspect ratio must be smaller than 2)"
    )


def test_a_conversation_that_the_template_refuses_is_named(tiny, tmp_path):
    processor = load_processor(tiny)
    processor.chat_template = (
        "{%- if messages[0].role == 'system' -%}{{ raise_exception('No system') }}{%- endif -%}"
        + processor.chat_template
    )
    talk = [{"from": s, "value": "a"} for s in ("system", "human", "gpt")]
    (tmp_path / "x.json").write_text(json.dumps([{"id": 7, "conversations": talk}]))
    records = LlavaJson(str(tmp_path / "x.json")).records(tmp_path / "cache")
    said = r"x.json: record 0 \(id .7.\): .*\(No system\); with data.system_text=question "
    with pytest.raises(ModelError, match=said):
        EncodedBatches(records, Encoder(processor))[[0]]


def test_a_system_text_that_the_template_refuses_goes_to_the_first_question(tiny):
    told = Turn("system", "Be brief.")
    shown = (Turn("user", "<image>\nwhat?"), Turn("assistant", "red"))
    joined = (Turn("user", "Be brief.\n\n<image>\nwhat?"), shown[1])
    takes, refuses = load_processor(tiny), load_processor(tiny)
    refuses.chat_template = (
        "{%- if messages[0].role == 'system' -%}{{ raise_exception('No system') }}{%- endif -%}"
        + refuses.chat_template
    )
    image = Image.new("RGB", (30, 30), "red")

    def ids(processor, *turns, **options):
        encoder = Encoder(processor, **options)
        record = Record("x", ("x.png",), turns)
        return encoder.encode(record, [encoder.encode_image(image)]).input_ids.tolist()

    moved = ids(refuses, told, *shown, system_text="question")
    assert moved == ids(refuses, *joined) != ids(refuses, *shown)
    assert ids(takes, told, *shown, system_text="question") == ids(takes, told, *shown)

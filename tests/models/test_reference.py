"""Lost if these fail: the right activations, whatever else is in the batch."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records
from coincide_pl.errors import ModelError
from coincide_pl.models.loading import load_model
from coincide_pl.models.processors import load_processor
from coincide_pl.models.reference import ReferenceModule
from coincide_pl.signals import Activations

CONVERSATIONS = [
    Record("a", ("0.png",), (Turn("user", "<image>\nwhat is it?"), Turn("assistant", "red"))),
    Record(
        "b",
        ("0.png",),
        (Turn("user", "<image>\nis it a big blue square?"), Turn("assistant", "no")),
    ),
    Record("c", (), (Turn("user", "how are you?"), Turn("assistant", "fine, thanks"))),
    Record(
        "d",
        ("1.png", "0.png"),
        (
            Turn("system", "Be brief."),
            Turn("user", "one <image> or <image> two"),
            Turn("assistant", "one"),
            Turn("user", "sure?"),
            Turn("assistant", "yes"),
        ),
    ),
]


@pytest.fixture
def records(tmp_path):
    random = np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / name)
    return Records.write(tmp_path / "records.arrow", CONVERSATIONS, image_root=tmp_path)


def plain(model, record, processor, root, layers, squash=torch.tanh):
    """One conversation, by the processor's own template and a forward pass with hooks."""
    messages = []
    for turn in record.turns:
        parts = []
        for i, text in enumerate(turn.text.split("<image>")):
            parts += [{"type": "image"}] if i else []
            parts += [{"type": "text", "text": text.removeprefix("\n")}]
        messages.append({"role": turn.role, "content": parts})
    text = processor.apply_chat_template(messages, tokenize=False)
    images = [Image.open(root / name) for name in record.images] or None
    inputs = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
    kept = {}
    blocks = model.model.language_model.layers
    hooks = [
        blocks[i].self_attn.o_proj.register_forward_hook(
            lambda m, a, o, i=i: kept.update({i: o[0]})
        )
        for i in layers
    ]
    with torch.no_grad():
        model(**{k: v for k, v in inputs.items() if k != "mm_token_type_ids"})
    for hook in hooks:
        hook.remove()
    ids = inputs["input_ids"][0]
    is_image = ids == processor.image_token_id
    if is_image.any():
        is_text = ~is_image & (torch.arange(len(ids)) > is_image.nonzero()[0])
    else:
        begin = text[: text.index(record.turns[0].text)]
        begin = len(processor.tokenizer(begin.rstrip(" "), add_special_tokens=False)["input_ids"])
        is_text = torch.arange(len(ids)) >= begin
    row = []
    for i in layers:
        for mask in (is_image, is_text):
            mean = squash(kept[i][mask].mean(0)) if mask.any() else torch.zeros(kept[i].shape[1])
            row.append(mean / max(mean.norm(), 1e-12))
    return torch.cat(row) / math.sqrt(2 * len(layers)), ids


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0], [2], [1, 0]])
def test_rows_equal_a_plain_pass(tiny, records, rows, left):
    layers = [2, 0, 1]
    module = ReferenceModule(tiny, layers)
    module.configure_model()
    data = EncodedBatches(records, Encoder(module.processor))
    batch = data[rows]
    if left:
        for name in ("input_ids", "attention_mask", "labels", "image_mask", "text_mask"):
            value = getattr(batch, name)
            lengths = batch.attention_mask.sum(1) if name == "input_ids" else lengths  # noqa: F821
            rolled = [v.roll(int(value.shape[1] - n)) for v, n in zip(value, lengths, strict=True)]
            setattr(batch, name, torch.stack(rolled))
        batch.prefix = None
    assert batch.num_images == len({path for i in rows for path in CONVERSATIONS[i].images})
    ours = module.predict_step(batch)["activations"]
    assert ours.dtype == torch.float16
    model, processor = load_model(tiny).eval(), load_processor(tiny)
    for row, i in zip(ours, rows, strict=True):
        expected, _ = plain(model, CONVERSATIONS[i], processor, records.image_root, layers)
        np.testing.assert_allclose(row.float(), expected, atol=2e-4)


def test_tanh_can_be_left_out(tiny, records):
    module = ReferenceModule(tiny, signals=[Activations([0, 2], tanh=False)])
    module.configure_model()
    batch = EncodedBatches(records, Encoder(module.processor))[[0, 3]]
    ours = module.predict_step(batch)["activations"]
    model, processor = load_model(tiny).eval(), load_processor(tiny)
    for row, i in zip(ours, (0, 3), strict=True):
        root = records.image_root
        expected, _ = plain(model, CONVERSATIONS[i], processor, root, [0, 2], lambda mean: mean)
        np.testing.assert_allclose(row.float(), expected, atol=2e-4)


def test_nothing_after_the_deepest_layer_runs(tiny, records):
    module = ReferenceModule(tiny, [0, 1])
    module.configure_model()

    def fail(*_):
        raise AssertionError("ran too far")

    module.model.lm_head.register_forward_hook(fail)
    module.model.model.language_model.layers[1].mlp.register_forward_hook(fail)
    batch = EncodedBatches(records, Encoder(module.processor))[[0, 2]]
    assert module.predict_step(batch)["activations"].shape == (2, 2 * 2 * 32)


def test_tokens_and_labels(tiny, records):
    processor = load_processor(tiny)
    encoder = Encoder(processor)
    model = load_model(tiny)
    for i in range(4):
        batch = EncodedBatches(records, encoder)[[i]]
        _, ids = plain(model, CONVERSATIONS[i], processor, records.image_root, [0])
        assert batch.input_ids[0].tolist() == ids.tolist()
        labels = batch.labels[0]
        text = processor.tokenizer.decode(labels[labels != IGNORE])
        answers = [t.text for t in CONVERSATIONS[i].turns if t.role == "assistant"]
        assert text == "".join(f" {answer}</s>" for answer in answers)


def test_typed_control_tokens_stay_text(tiny, tmp_path):
    turns = (Turn("user", "say </s> and <pad>"), Turn("assistant", "<image></s> ASSISTANT: no"))
    encoder = Encoder(load_processor(tiny))
    ids = encoder.encode(Record("x", (), turns), []).input_ids.tolist()
    tokenizer = encoder.tokenizer
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.convert_tokens_to_ids("<image>") not in ids
    assert tokenizer.decode(ids) == (
        "<s>USER: say </s> and <pad> ASSISTANT: <image></s> ASSISTANT: no</s>"
    )


def test_cutting_keeps_image_runs_whole(tiny, records):
    for length in range(3, 40):
        batch = EncodedBatches(records, Encoder(load_processor(tiny), length))[[3]]
        assert batch.input_ids.shape[1] <= length
        assert int(batch.image_mask.sum()) == 4 * len(batch.image_index)
        load_model(tiny)(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            **({"pixel_values": batch.image_inputs["pixel_values"]} if batch.num_images else {}),
        )


def test_wrong_checkpoints_and_layers_are_named(tiny, tmp_path):
    with pytest.raises(ModelError, match="no such checkpoint"):
        ReferenceModule(str(tmp_path / "absent"), [0])
    with pytest.raises(ModelError, match="without a model"):
        ReferenceModule(str(tmp_path), [0])
    module = ReferenceModule(tiny, [4])
    with pytest.raises(ModelError, match="4 is not a layer"):
        module.configure_model()

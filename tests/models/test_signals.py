"""Lost if these fail: signals that are what their papers define, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from kinds import CONVERSATIONS
from PIL import Image
from transformers import (
    AutoModel,
    CLIPImageProcessor,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)

from coincide_pl.data.clip import ClipEncoder, conversation_text
from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records
from coincide_pl.errors import ModelError, SignalsError
from coincide_pl.models import CLIPModule, ReferenceModule, forward_pass
from coincide_pl.models.loading import load_model, save_checkpoint
from coincide_pl.models.logits import of_the_head
from coincide_pl.models.tiny import tiny_clip, tiny_tokenizer
from coincide_pl.signals.clip import NO_IMAGE

ALL = ["el2n", "mean_token", "activations", "nll", "last_token", "margin"]


@pytest.fixture
def records(tmp_path):
    """The conversations, and their two images."""
    random = np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / name)
    return Records.write(tmp_path / "r.arrow", CONVERSATIONS, image_root=tmp_path)


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


def plain(model, batch):
    """The signals of one sample, written out."""
    pixels = dict(batch.image_inputs)
    if pixels:
        pixels = {"pixel_values": pixels["pixel_values"][batch.image_index]}
    with torch.no_grad():
        out = model(input_ids=batch.input_ids, **pixels, output_hidden_states=True)
    states = out.hidden_states[-1][0]  # after the final norm
    errors, losses, margins = [], [], []
    for place, label in enumerate(batch.labels[0].tolist()):
        if label == IGNORE:
            continue
        p = out.logits[0, place - 1].double().softmax(0)
        truth = torch.zeros_like(p)
        truth[label] = 1
        errors.append((p - truth).norm())
        losses.append(-p[label].log())
        margins.append(p[label] - torch.cat([p[:label], p[label + 1 :]]).max())
    means = [torch.stack(x).mean() for x in (errors, losses, margins)]
    named = dict(zip(("el2n", "nll", "margin"), means, strict=True))
    return {**named, "last_token": states[-1], "mean_token": states.mean(0)}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0], [2], [1, 0]])
def test_signals_equal_a_plain_pass(tiny, records, rows, left, monkeypatch):
    monkeypatch.setattr(forward_pass.token_values, "__defaults__", (2000,))  # several chunks
    module = ReferenceModule(tiny, [0, 1], ALL)
    module.configure_model()
    data = EncodedBatches(records, Encoder(module.processor))
    batch = on_the_left(data[rows]) if left else data[rows]
    ours = module.predict_step(batch)
    assert set(ours) == set(ALL)
    model = load_model(tiny).eval()
    alone = ReferenceModule(tiny, [0, 1])
    alone.configure_model()
    expected = alone.predict_step(batch)["activations"]
    np.testing.assert_array_equal(ours["activations"], expected)
    for at, row in enumerate(rows):
        for name, value in plain(model, data[[row]]).items():
            assert ours[name].dtype == torch.float32
            np.testing.assert_allclose(ours[name][at], value, atol=1e-4, rtol=0, err_msg=name)


def test_several_signals_are_one_pass_and_the_head_sees_answers_alone(tiny, records):
    module = ReferenceModule(tiny, [0, 1], ALL)
    module.configure_model()
    seen, passes = [], []
    module.model.lm_head.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    module.model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    batch = EncodedBatches(records, Encoder(module.processor))[[0, 1, 2, 3]]
    module.predict_step(batch)
    assert len(passes) == 1
    assert seen == [int((batch.labels[:, 1:] != IGNORE).sum())]


def test_a_sample_without_an_answer_counts_as_predicted_perfectly(tiny, records):
    module = ReferenceModule(tiny, None, ["el2n", "nll", "margin", "mean_token"])
    module.configure_model()
    batch = EncodedBatches(records, Encoder(module.processor, 12))[[0, 2]]
    assert (batch.labels[0] == IGNORE).all()
    ours = module.predict_step(batch)
    assert [float(ours[name][0]) for name in ("el2n", "nll", "margin")] == [0, 0, 1]
    assert all(torch.isfinite(value).all() for value in ours.values())


def test_what_can_not_be_asked_for_is_named(tiny):
    for signals in ([], ["el2n", "el2n"]):
        with pytest.raises(SignalsError, match=r"signals: .* must have different names"):
            ReferenceModule(tiny, [0], signals)
    with pytest.raises(SignalsError, match="layers: activations needs decoder layers"):
        ReferenceModule(tiny)
    assert ReferenceModule(tiny, [0], ["el2n"]).signals[0].arguments == {}  # layers have no part


@pytest.mark.parametrize(
    ("setting", "value"),
    [("logit_scale", 0.5), ("logits_scaling", 4.0), ("final_logit_softcapping", 2.0)],
)
def test_what_a_model_does_to_its_logits_is_done(tiny, setting, value):
    model = load_model(tiny)
    setattr(model.config.get_text_config(), setting, value)
    logits = torch.tensor([[1.0, -3.0]])
    expected = {
        "logit_scale": logits * value,
        "logits_scaling": logits / value,
        "final_logit_softcapping": value * (logits / value).tanh(),
    }[setting]
    torch.testing.assert_close(of_the_head(logits, model), expected)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A checkpoint of a tiny CLIP with random weights."""
    path = tmp_path_factory.mktemp("models") / "clip"
    tiny_clip(str(path), width=32, image_size=32, max_length=24)
    return str(path)


@pytest.fixture(scope="session")
def siglip(tmp_path_factory):
    """A checkpoint of a tiny SigLIP with random weights."""
    path = tmp_path_factory.mktemp("models") / "siglip"
    tokenizer = tiny_tokenizer(300)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 32}
    config = SiglipConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    torch.manual_seed(0)
    save_checkpoint(path, SiglipModel(config), SiglipProcessor(images, tokenizer))
    return str(path)


def plain_clip(model, processor, record, root, padding):
    """One sample's embeddings and score, by the processor and the model alone."""
    text = processor.tokenizer(
        [conversation_text(record)],
        truncation=True,
        max_length=24,
        padding=padding,
        return_tensors="pt",
    )
    ids = text["input_ids"]
    norm = torch.nn.functional.normalize
    with torch.no_grad():
        words = norm(model.get_text_features(input_ids=ids).pooler_output)[0]
        shown = torch.zeros_like(words)
        if record.images:
            pixels = processor.image_processor(
                images=[Image.open(root / name) for name in record.images], return_tensors="pt"
            )
            each = norm(model.get_image_features(**pixels).pooler_output)
            shown = norm(each.mean(0), dim=0)
    score = shown @ words if record.images else torch.tensor(NO_IMAGE)
    return {"clip_image": shown, "clip_text": words, "clip_score": score}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0], [2]])
def test_clip_embeddings_equal_a_plain_pass(kind, rows, records, request):
    path = request.getfixturevalue(kind)
    module = CLIPModule(path)
    module.configure_model()
    data = EncodedBatches(records, ClipEncoder(module.processor, 2048))
    batch = data[rows]
    assert batch.num_images == len({name for i in rows for name in CONVERSATIONS[i].images})
    ours = module.predict_step(batch)
    model = AutoModel.from_pretrained(path).eval()
    padding = "max_length" if kind == "siglip" else True
    for at, row in enumerate(rows):
        expected = plain_clip(
            model, module.processor, CONVERSATIONS[row], records.image_root, padding
        )
        for name, value in expected.items():
            np.testing.assert_allclose(ours[name][at], value, atol=1e-4, err_msg=name)
    for signal in module.signals:
        assert ours[signal.name].shape == (len(rows), *signal.shape(module.facts))


def test_clip_reads_the_words_and_no_more_than_it_can(clip):
    encoder = ClipEncoder(CLIPModule(clip).processor, 2048)
    assert conversation_text(CONVERSATIONS[3]) == "one or two\none\nsure?\nyes"
    encoding = encoder.encode(CONVERSATIONS[3], [])
    assert len(encoding.input_ids) <= 24
    encoding = encoder.encode(Record("x", (), (Turn("user", "what " * 50),)), [])
    assert encoding.truncated
    assert len(encoding.input_ids) == 24
    assert encoding.input_ids[-1] == encoder.tokenizer.eos_token_id


def test_no_clip_in_a_checkpoint_is_named(tiny):
    module = CLIPModule(tiny)
    with pytest.raises(ModelError, match="does not embed images and texts apart"):
        module.configure_model()

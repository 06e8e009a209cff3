"""Lost if these fail: what a signal of tomorrow may ask of the pass, and nothing computed twice."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records
from coincide_pl.data.rewriting import WITHOUT_IMAGE
from coincide_pl.errors import ModelError, SignalsError
from coincide_pl.models.forward_pass import ForwardPass
from coincide_pl.models.loading import load_model
from coincide_pl.models.processors import load_processor
from coincide_pl.signals.forward import Forward, LayerOutput, Needs, union
from coincide_pl.signals.likelihood import El2n, NegativeLogLikelihood

QUESTIONS = ("what is it?", "is it a big blue square?", "which one?", "why?")
NLL = NegativeLogLikelihood.value


@pytest.fixture
def batch(tiny, tmp_path):
    """Four conversations about two images, one of them with a longer beginning, and one of text."""
    random = np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / name)
    records = []
    for i, question in enumerate(QUESTIONS):
        system = (Turn("system", "Be brief."),) if i % 2 else ()
        turns = (*system, Turn("user", f"<image>\n{question}"), Turn("assistant", "a red one"))
        records += [Record(f"{i}a", (f"{i % 2}.png",), turns)]
    together = Records.write(tmp_path / "r.arrow", records, image_root=tmp_path)
    encoder = Encoder(load_processor(tiny))
    return EncodedBatches(together, encoder, rewritings=[WITHOUT_IMAGE])[[0, 1, 2, 3]]


def alone(batch, row):
    """The model's own inputs for one conversation."""
    length = int(batch.attention_mask[row].sum())
    pixels = batch.image_inputs["pixel_values"][batch.image_index[row]][None]
    return {"input_ids": batch.input_ids[row : row + 1, :length], "pixel_values": pixels}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_layer_outputs_equal_those_that_transformers_gives_out(tiny, batch, kind, shared):
    assert batch.prefix is not None
    batch.prefix = batch.prefix if shared else None
    needs = Needs(
        frozenset(LayerOutput(k, i) for k in ("attention_weights", "block_output") for i in (0, 2))
    )
    model = load_model(tiny, attn_implementation=kind).eval()
    forward = ForwardPass(model, needs)(batch)
    plain = AutoModelForImageTextToText.from_pretrained(tiny, attn_implementation="eager").eval()
    for row in range(4):
        inputs = alone(batch, row)
        length = inputs["input_ids"].shape[1]
        with torch.no_grad():
            out = plain(**inputs, output_attentions=True, output_hidden_states=True)
        for layer in (0, 2):
            weights = forward.output("attention_weights", layer)[row, :length, :length]
            torch.testing.assert_close(weights, out.attentions[layer][0].mean(0))
            states = forward.output("block_output", layer)[row, :length]
            torch.testing.assert_close(states, out.hidden_states[layer + 1][0], atol=1e-4, rtol=0)


def test_reading_weights_leaves_what_layers_put_out_as_it_is(tiny, batch):
    places = frozenset({LayerOutput("attention_output", 1)})
    model = load_model(tiny).eval()
    before = ForwardPass(model, Needs(places, hidden=True))(batch)
    more = places | {LayerOutput("attention_weights", 1)}
    after = ForwardPass(model, Needs(more, hidden=True))(batch)
    assert torch.equal(before.hidden, after.hidden)
    again = ForwardPass(model, Needs(places, hidden=True))(batch)
    assert torch.equal(before.hidden, again.hidden)
    assert set(again.outputs) == places


def test_mlp_outputs_are_what_the_layer_adds(tiny, batch):
    model = load_model(tiny).eval()
    forward = ForwardPass(model, Needs(frozenset({LayerOutput("mlp_output", 1)})))(batch)
    kept = []
    mlp = model.model.language_model.layers[1].mlp
    hook = mlp.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        model(**alone(batch, 3))
    hook.remove()
    ours = forward.output("mlp_output", 1)[3, : kept[0].shape[1]]
    torch.testing.assert_close(ours, kept[0][0], atol=1e-4, rtol=0)


def test_the_pass_without_the_image_is_a_text_only_conversation(tiny, batch):
    model = load_model(tiny).eval()
    second = Needs(token_values=frozenset({NLL}))
    forward = ForwardPass(model, Needs(passes={WITHOUT_IMAGE: second}))(batch)
    means = forward.another(WITHOUT_IMAGE).answer_mean(NLL)
    processor = AutoProcessor.from_pretrained(tiny)
    for row, question in enumerate(QUESTIONS):
        messages = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}]
        messages = messages if row % 2 else []
        for role, text in (("user", question), ("assistant", "a red one")):
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
        text = processor.apply_chat_template(messages, tokenize=False)
        ids = processor.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        ours = batch.rewritten[WITHOUT_IMAGE]
        length = int(ours.attention_mask[row].sum())
        assert ours.input_ids[row, :length].tolist() == ids[0].tolist()
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].log_softmax(-1)
        answers = (ours.labels[row, :length] != IGNORE).nonzero()[:, 0]
        losses = [-logits[place - 1, ids[0, place]] for place in answers]
        torch.testing.assert_close(means[row], torch.stack(losses).mean())


def test_a_pass_runs_once_for_the_union_of_what_signals_need(tiny, batch):
    model = load_model(tiny).eval()
    one = Needs(frozenset({LayerOutput("attention_output", 0)}))
    two = Needs(token_values=frozenset({NLL, El2n.value}))
    passes, rows, second = [], [], Needs(passes={WITHOUT_IMAGE: two})
    model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    model.lm_head.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    batch.prefix = None
    forward = ForwardPass(model, union([one, two, two, Needs()]))(batch)
    answers = int((batch.labels[:, 1:] != IGNORE).sum())
    assert (len(passes), rows) == (1, [answers])
    assert set(forward.token_values) == {NLL, El2n.value}
    assert forward.hidden is None
    ForwardPass(model, union([two, second, second]))(batch)
    assert (len(passes), rows) == (3, [answers] * 3)
    assert ForwardPass(model, Needs())(batch).outputs == {}
    assert len(passes) == 3


def test_what_was_not_asked_for_and_what_is_not_there_are_named(tiny, batch):
    with pytest.raises(SignalsError, match="reads mlp_output of layer 3, which its `needs`"):
        Forward(batch).output("mlp_output", 3)
    with pytest.raises(SignalsError, match="reads values of value"):
        Forward(batch).answer_mean(NLL)
    model = load_model(tiny)
    with pytest.raises(ModelError, match="layers: 7 is not a layer"):
        ForwardPass(model, Needs(frozenset({LayerOutput("attention_weights", 7)})))
    place = frozenset({LayerOutput("mlp_output", 0)})
    with pytest.raises(ModelError, match=r"parts.mlp_output: a decoder layer has no 'ffn'"):
        ForwardPass(model, Needs(place), {"mlp_output": "ffn"})

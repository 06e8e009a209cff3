"""Lost if these fail: DICS's consistencies, and where answers look and what they activate."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from conversations import RECORDS, answer_losses, batches, write_records
from transformers import AutoModelForImageTextToText

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.errors import SignalsError
from coincide_pl.models import ReferenceModule
from coincide_pl.models.tiny import tiny_tokenizer
from coincide_pl.signals import BridgingRelevance, SkillNeurons, VisualConsistency
from coincide_pl.signals.words import FUNCTION_WORDS, functional

LAYERS = [0, 2]
NAMES = ["visual_consistency", "response_consistency", "bridging_relevance", "skill_neurons"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def module(tiny, request):
    module = ReferenceModule(tiny, LAYERS, NAMES, attn_implementation=request.param)
    module.configure_model()
    return module


@pytest.fixture(scope="module")
def plain(tiny):
    return AutoModelForImageTextToText.from_pretrained(tiny, attn_implementation="eager").eval()


def alone(batch, row, pixels):
    """The model's own inputs for one conversation, and its labels."""
    length = int(batch.attention_mask[row].sum())
    inputs = {"input_ids": batch.input_ids[row : row + 1, :length]}
    return {**inputs, **pixels}, batch.labels[row, :length]


def pixels_of(batch, row):
    """Of one conversation's images."""
    first = int(batch.image_counts[:row].sum())
    places = batch.image_index[first : first + int(batch.image_counts[row])]
    return {"pixel_values": batch.image_inputs["pixel_values"][places]} if len(places) else {}


def turns(labels):
    """The places of each answer's tokens."""
    places = [at for at, label in enumerate(labels.tolist()) if label != IGNORE]
    cuts = [i for i in range(1, len(places)) if places[i] != places[i - 1] + 1]
    return [part.tolist() for part in np.split(np.array(places, int), cuts) if len(part)]


def weight(tokenizer, ids, at):
    """0.1 for a token that is a function word or punctuation, by the text around it."""
    text = tokenizer.decode(ids[at]).strip().lower()
    if ids[at] in tokenizer.all_special_ids:
        return 1.0
    if re.fullmatch(r"[^\w\s]+", text):
        return 0.1
    before, after = (tokenizer.decode(ids[i]) if i < len(ids) else "" for i in (at - 1, at + 1))
    inside = re.search(r"\w$", before) and re.match(r"\w", tokenizer.decode(ids[at]))
    return 0.1 if text in FUNCTION_WORDS and not inside and not re.match(r"\w", after) else 1.0


def consistency(plain, tokenizer, more, less):
    """exp of the weighted difference, turn by turn, in loops."""
    (inputs, labels), (others, their_labels) = more, less
    losses = iter(answer_losses(plain, inputs, labels).tolist())
    their = iter(answer_losses(plain, others, their_labels).tolist())
    ids = inputs["input_ids"][0].tolist()
    found = []
    for places in turns(labels):
        weights = [weight(tokenizer, ids, at) for at in places]
        gains = [next(their) - next(losses) for _ in places]
        found.append(math.exp(np.dot(weights, gains) / sum(weights)))
    return np.mean(found) if found else 1.0


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0], [1], [0, 0]])
def test_consistencies_equal_loops_over_turns_and_tokens(module, plain, records, rows):
    batch = batches(module, records)[rows]
    ours = module.predict_step(batch)
    signals = {signal.name: signal for signal in module.signals}
    (text,) = signals["visual_consistency"].needs.passes
    question, by_answer = signals["response_consistency"].needs.passes
    tokenizer = module.processor.tokenizer
    for at, row in enumerate(rows):
        if not RECORDS[row].images:
            assert ours["visual_consistency"][at] == ours["response_consistency"][at] == 1
            continue
        shown = pixels_of(batch, at)
        forms = {form: alone(part, at, shown) for form, part in batch.rewritten.items()}
        forms[text] = alone(batch.rewritten[text], at, {})
        vic = consistency(plain, tokenizer, alone(batch, at, shown), forms[text])
        ric = consistency(plain, tokenizer, forms[by_answer], forms[question])
        np.testing.assert_allclose(ours["visual_consistency"][at], vic, rtol=1e-3)
        np.testing.assert_allclose(ours["response_consistency"][at], ric, rtol=1e-3)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0], [0, 0]])
def test_relevance_and_neurons_equal_loops_over_one_conversation(module, plain, records, rows):
    batch = batches(module, records)[rows]
    ours = module.predict_step(batch)
    for at, _ in enumerate(rows):
        inputs, labels = alone(batch, at, pixels_of(batch, at))
        kept, hooks = [], []
        for layer in LAYERS:
            down = plain.model.language_model.layers[layer].mlp.down_proj
            keep = partial(lambda kept, _, given: kept.append(given[0][0]), kept)
            hooks.append(down.register_forward_pre_hook(keep))
        with torch.no_grad():
            attentions = plain(**inputs, output_attentions=True).attentions
        for hook in hooks:
            hook.remove()
        answers = [t for places in turns(labels) for t in places]
        image = [v for v, is_image in enumerate(batch.image_mask[at].tolist()) if is_image]
        relevance = []
        for layer in LAYERS:
            mean = attentions[layer][0].mean(0)
            for t in answers if image else []:
                on_image = mean[t, image].double()
                share = on_image / on_image.sum()
                entropy = -(share * share.log()).sum()
                relevance.append(on_image.sum() * (1 - entropy / math.log(len(image))))
        expected = torch.stack(relevance).mean().float() if relevance else torch.zeros(())
        torch.testing.assert_close(ours["bridging_relevance"][at], expected, atol=1e-5, rtol=1e-3)
        for number in range(len(LAYERS)):
            found = ours["skill_neurons"][at, number].tolist()
            if not answers:
                assert found == [-1, -1, -1]
                continue
            active = kept[number][answers].mean(0)
            assert found == active.argsort(descending=True)[:3].tolist()


def test_weights_are_of_whole_words_and_punctuation():
    tokenizer = tiny_tokenizer(400, ["anthem", "within"])
    text = "The anthem is within the box, or it."
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    light = functional(ids, tokenizer)[0].tolist()
    said = [tokenizer.decode(i) for i in ids[0].tolist()]
    assert "".join(said) == text
    marked = "".join(
        "." * len(s) if is_light else s for s, is_light in zip(said, light, strict=True)
    )
    for heavy in ("anthem", "is", "box"):
        assert heavy in marked
    for word in (" within", " the", " or", " it", ","):
        if word in said:
            assert word not in marked, said
    assert not functional(torch.tensor([[tokenizer.eos_token_id]]), tokenizer).any()


class Pieces:
    """What is asked of a tokenizer."""

    def __init__(self, *tokens):
        self.tokens, self.all_special_tokens = tokens, ["</s>"]

    def get_vocab(self):
        return {token: number for number, token in enumerate(self.tokens)}


@pytest.mark.parametrize(
    ("tokens", "light"),
    [
        (("▁the", "▁an", "them", "▁dog", ",", "▁the", "</s>"), "1000110"),
        (("Ġthe", "Ġan", "them", "Ġdog", ",", "Ċ", "the", "</s>"), "10001010"),
        (("the", "an", "##them", "dog", ",", "of"), "100011"),
    ],
)
def test_the_three_ways_in_which_tokens_mark_words(tokens, light):
    known = list(dict.fromkeys(tokens))
    ids = torch.tensor([[known.index(token) for token in tokens]])
    assert functional(ids, Pieces(*known))[0].int().tolist() == [int(x) for x in light]


def test_several_signals_share_passes_and_wrong_options_are_named(tiny, records):
    module = ReferenceModule(tiny, LAYERS, [*NAMES, "nll", "nll_without_image", "nll_question"])
    module.configure_model()
    assert len(module.rewritings) == 3
    runs = []
    module.model.model.language_model.register_forward_hook(lambda *_: runs.append(1))
    batch = EncodedBatches(records, Encoder(module.processor), rewritings=module.rewritings)[[0, 2]]
    module.predict_step(batch)
    assert len(runs) == 4
    for wrong in (
        lambda: BridgingRelevance([]),
        lambda: SkillNeurons([1, 1]),
        lambda: SkillNeurons([0], top=0),
        lambda: VisualConsistency(0),
    ):
        with pytest.raises(SignalsError, match=r"layers: |top: |function_weight: 0 must be"):
            wrong()
    module = ReferenceModule(tiny, None, [SkillNeurons([0], 99999)])
    module.configure_model()
    with pytest.raises(SignalsError, match="top: 99999 of the"):
        module.predict_step(batch)

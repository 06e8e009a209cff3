"""Lost if these fail: LLaVA's prompts, token for token and label for label."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import LlavaProcessor

from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.images import open_image
from coincide_pl.data.record import Record, Turn
from coincide_pl.models.conversion.llama_tokenizer import llama_tokenizer
from coincide_pl.models.conversion.llava_checkpoints import chat_template
from coincide_pl.models.processors import load_processor

LLAVA = Path(__file__).parents[1] / "data" / "parity" / "llava15"
SENDERS = {"human": "user", "gpt": "assistant"}
IMAGE_TOKENS = 16


def encoded(encoder, conversation, max_length=2048):
    """The conversation as this package encodes it; a first answer without question is left out."""
    turns = [Turn(SENDERS[turn["from"]], turn["value"]) for turn in conversation]
    while turns[0].role == "assistant":
        turns = turns[1:]
    while turns[-1].role == "user":
        turns = turns[:-1]
    images = sum("<image>" in turn.text for turn in turns if turn.role == "user")
    encoder.max_length = max_length
    image = encoder.encode_image(open_image(LLAVA / "images", "e0.png"))
    return encoder.encode(Record("x", ("e0.png",) * images, tuple(turns)), [image] * images)


def with_image_runs(expected, image_id, max_length):
    """The original's tokens and labels, its one mark as the run that the model makes of it."""
    ids, labels = [], []
    for token, label in zip(expected["input_ids"], expected["labels"], strict=True):
        run = IMAGE_TOKENS if token == -200 else 1
        ids += [image_id if token == -200 else token] * run
        labels += [label] * run
    return ids[:max_length], labels[:max_length]


def names(path):
    return list(json.loads(path.read_text()))


@pytest.mark.parametrize("length", [2048, 64])
@pytest.mark.parametrize("name", names(LLAVA / "conversations.json"))
def test_tokens_and_labels_are_the_originals(llava15, name, length):
    encoder = Encoder(load_processor(llava15))
    conversation = json.loads((LLAVA / "conversations.json").read_text())[name]
    expected = json.loads((LLAVA / "expected_tokens.json").read_text())[name][str(length)]
    ids, labels = with_image_runs(expected, encoder.image_id, length)
    ours = encoded(encoder, conversation, length)
    assert ours.input_ids.tolist() == ids[: len(ours.input_ids)]
    assert ours.labels.tolist() == labels[: len(ours.input_ids)]
    assert len(ours.input_ids) == min(len(ids), length)


LEGACY_FALSE = json.loads((LLAVA / "legacy_false" / "conversations.json").read_text())


def vicuna(llava15, folder):
    """The encoder of a checkpoint whose tokenizer is that of `folder`."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = llama_tokenizer(folder, config, {"image_token": "<image>"})
    known = load_processor(llava15)
    return Encoder(
        LlavaProcessor(
            known.image_processor,
            tokenizer,
            patch_size=known.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=chat_template("</s>", not config["legacy"]),
        )
    )


@pytest.mark.parametrize("conversation", LEGACY_FALSE, ids=[c["id"] for c in LEGACY_FALSE])
def test_tokens_of_a_newer_tokenizer(llava15, conversation):
    encoder = vicuna(llava15, LLAVA / "legacy_false" / "tokenizer")
    expected = json.loads((LLAVA / "legacy_false" / "expected_tokens.json").read_text())
    own = expected["max2048"][conversation["id"]]
    ids, labels = with_image_runs(own, encoder.image_id, 2048)
    ours = encoded(encoder, conversation["conversations"])
    if conversation["id"] == "eos_in_answer":  # typed, not an end: the original masks it whole
        text = encoder.tokenizer.decode(ours.labels[ours.labels != IGNORE])
        assert text == "It ends with </s> always.</s>"
    elif conversation["id"] == "ends_with_human":  # nothing is learned from a question
        assert ours.input_ids.tolist() == ids[: len(ours.input_ids)]
        assert encoder.tokenizer.decode(ours.labels[ours.labels != IGNORE]) == "One.</s>"
    else:
        assert ours.input_ids.tolist() == ids
        assert ours.labels.tolist() == labels


PIECES = [
    "a",
    "red",
    "USER:",
    "ASSISTANT: ",
    " ",
    "  ",
    "\n",
    "\t",
    "é",
    "图",
    "▁",
    "<im",
    "?",
    ".",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@pytest.mark.parametrize("legacy", [True, False])
@given(turns=st.lists(TEXT, min_size=2, max_size=6), marked=st.sets(st.integers(0, 2)))
@example(turns=["", "x"], marked={0})
@example(turns=["a  b", "  x  "], marked=set())
@example(turns=["q", "a", "r", ""], marked={1})
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_tokenized_as_the_original_would(llava15, legacy, turns, marked):
    """The original's rules, written down plainly, over the original's SentencePiece model."""
    folder = LLAVA / ("llava-v1.5-tiny" if legacy else "legacy_false/tokenizer")
    encoder = ENCODERS.setdefault(legacy, vicuna(llava15, folder))
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    turns = turns[: len(turns) // 2 * 2]
    if not any(turns[1::2]):
        turns[-1] = "x"
    prompt, answers, conversation, images = "", [], [], 0
    system = encoder.template.render([Turn("user", "?"), Turn("assistant", "?")])[0][0]
    prompt = system[: system.index("USER:")]
    for number, text in enumerate(turns):
        user = number % 2 == 0
        said = f"{text}<image>" if user and number // 2 in marked else text
        conversation.append({"from": "human" if user else "gpt", "value": said})
        if "<image>" in said:
            said = f"<image>\n{text.strip()}".strip()
            images += 1
        prompt += "USER:" if user else "ASSISTANT:"
        if said:
            answers += [] if user else [(len(prompt), len(prompt) + 1 + len(said) + 4)]
            prompt += f" {said} " if user else f" {said}</s>"
    ids, labels = [1], [IGNORE]
    for number, chunk in enumerate(prompt.split("<image>")):
        if number:
            ids += [encoder.image_id] * IMAGE_TOKENS
            labels += [IGNORE] * IMAGE_TOKENS
        at = sum(map(len, prompt.split("<image>")[:number])) + 7 * number
        for part, text in enumerate(chunk.split("</s>")):
            if part:
                ids.append(2)
                labels.append(2)
                at += 4
            answer = any(start < at + len(text) and at < stop for start, stop in answers)
            head = text.rindex("ASSISTANT:") + 10 if answer and "ASSISTANT: " in text else 0
            if answer and text:
                starts = [start for start, _ in answers if at <= start <= at + len(text)]
                head = starts[0] - at if starts else 0
            own = slow_tokens(pieces, text, legacy, first=part == 0)
            masked = len(slow_tokens(pieces, text[:head], legacy, first=part == 0)) if head else 0
            ids += own
            labels += [IGNORE] * masked + own[masked:] if answer else [IGNORE] * len(own)
            at += len(text)
    ours = encoded(encoder, conversation)
    assert ours.input_ids.tolist() == ids
    assert ours.labels.tolist() == labels
    assert ours.num_images == images


ENCODERS = {}


def slow_tokens(pieces, text, legacy, first):
    """Ids of a text between control tokens, by the slow Llama tokenizer of transformers 4."""
    if legacy:
        return pieces.encode(text) if text else []
    if not text:
        return []
    text = text.replace("▁", " ")
    text = "▁" + text if first else text
    prefix = pieces.encode("<unk>")  # after it, no blank is put in front
    return pieces.encode("<unk>" + text)[len(prefix) :]

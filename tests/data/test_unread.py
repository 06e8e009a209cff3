"""Lost if these fail: samples that lose their video, image or tools, and are trained on as text."""

import json

import pytest

from coincide_pl.data.readers import ChatDataset, LlavaJson, QuestionFile
from coincide_pl.data.record import Turn
from coincide_pl.errors import DataError

TALK = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def read(reader, tmp_path, item):
    (tmp_path / "data.json").write_text(json.dumps([item]))
    (record,) = reader(str(tmp_path / "data.json"))
    return record


def says(text):
    return {"conversations": [{"from": "human", "value": text}, TALK[1]]}


@pytest.mark.parametrize(
    "more",
    [
        {"video": "a.mp4"},
        {"videos": ["a.mp4"]},
        {"audio": "a.wav"},
        {"audio_path": "a.wav"},
        {"speech": "a.wav"},
        {"image_path": "a.png"},
        {"img": "a.png"},
        {"image_url": ["a.png"]},
        {"frames": ["a.png", "b.png"]},
        {"tools": [{"name": "search"}]},
        {"image": "a.png", "images": ["b.png"]},
        {"image": "a.png", "video": "a.mp4"},
    ],
)
def test_media_under_other_keys_are_named(tmp_path, more):
    key = next(reversed(more))
    for reader, item in ((LlavaJson, {"conversations": TALK}), (ChatDataset, {"messages": CHAT})):
        with pytest.raises(DataError, match=f"'{key}'"):
            read(reader, tmp_path, item | more)
    question = {"question_id": 1, "text": "so?", "answer": "yes"}
    with pytest.raises(DataError, match=f"'{key}'"):
        read(QuestionFile, tmp_path, question | more)


@pytest.mark.parametrize(
    "more",
    [
        {"images": ["a.png"]},
        {"image": "a.png", "images": ["a.png"]},
        {"image": "a.png", "image_url": "https://x/a.png", "url": "x"},
        {"image": "a.png", "image_id": 3, "image_size": [3, 4], "video": None, "audios": []},
    ],
)
def test_what_is_read_or_harmless_stays(tmp_path, more):
    assert read(LlavaJson, tmp_path, {"conversations": TALK} | more).images == ("a.png",)
    assert read(ChatDataset, tmp_path, {"messages": CHAT} | more).images == ("a.png",)


@pytest.mark.parametrize(
    "text",
    [
        "<video>\nwhat happens?",
        "<video>what happens?",
        "what happens in <video>?",
        "what price tag is shown?\n<video>",
        "<audio>",
        "is it <speech> or not",
        "Picture 1: <img>0.png</img>\nwhat?",
        "<|image_1|>\nwhat?",
        "<image1> what?",
        "<|image_pad|>what?",
        "<ImageHere>what?",
        "<|audio|>what?",
    ],
)
def test_marks_of_other_formats_are_named(tmp_path, text):
    with pytest.raises(DataError, match="shows media by '<"):
        read(LlavaJson, tmp_path, says(text))
    chat = [{"role": "user", "content": text}, CHAT[1]]
    with pytest.raises(DataError, match="shows media by '<"):
        read(ChatDataset, tmp_path, {"messages": chat})


@pytest.mark.parametrize(
    "text",
    [
        "what does the <video> tag do in HTML?",
        "mend this:\n<video>\n<source src='a.mp4'>\n</video>",
        "is `<audio>` new?",
        "<img src='a.png'> is cut",
        "is a < b and b > c?",
    ],
)
def test_talk_about_html_is_text(tmp_path, text):
    assert read(LlavaJson, tmp_path, says(text)).turns[0].text == text


def test_marks_in_answers_and_beside_images_are_text(tmp_path):
    answer = {"conversations": [TALK[0], {"from": "gpt", "value": "<video>"}]}
    assert read(LlavaJson, tmp_path, answer).turns[1].text == "<video>"
    shown = {"image": "a.png", **says("is <image 1> red?")}
    assert read(LlavaJson, tmp_path, shown).images == ("a.png",)


@pytest.mark.parametrize(
    "more",
    [
        {"weight": 0},
        {"weight": 0.5},
        {"train": False},
        {"loss": False},
        {"tool_calls": [{"name": "search"}]},
        {"function_call": "search()"},
        {"reasoning_content": "hm"},
        {"images": ["a.png"]},
        {"video": "a.mp4"},
    ],
)
def test_more_in_a_turn_is_named(tmp_path, more):
    (key,) = more
    for reader, field, talk in (
        (LlavaJson, "conversations", TALK),
        (ChatDataset, "messages", CHAT),
    ):
        with pytest.raises(DataError, match=f"turn 1 has '{key}'"):
            read(reader, tmp_path, {field: [talk[0], talk[1] | more]})
    harmless = {"weight": 1, "train": True, "name": "x", "tool_calls": None, "images": []}
    assert read(ChatDataset, tmp_path, {"messages": [CHAT[0], CHAT[1] | harmless]}).turns


def test_tool_turns_are_named(tmp_path):
    for sender in ("tool", "function", "observation", "function_call"):
        talk = [TALK[0], {"from": sender, "value": "x"}, TALK[1]]
        with pytest.raises(DataError, match=f"'from' '{sender}'; known are"):
            read(LlavaJson, tmp_path, {"conversations": talk})


def test_a_system_text_beside_the_conversation_is_read(tmp_path):
    system = Turn("system", "Be brief.")
    for reader, item in ((LlavaJson, {"conversations": TALK}), (ChatDataset, {"messages": CHAT})):
        assert read(reader, tmp_path, item | {"system": "Be brief."}).turns[0] == system
        assert len(read(reader, tmp_path, item | {"system": ""}).turns) == 2
        with pytest.raises(DataError, match="'system' must be text"):
            read(reader, tmp_path, item | {"system": [1]})
    own = {"conversations": [{"from": "system", "value": "Be brief."}, *TALK]}
    assert len(read(LlavaJson, tmp_path, own | {"system": "Be brief."}).turns) == 3
    with pytest.raises(DataError, match="another text than the system turn"):
        read(LlavaJson, tmp_path, own | {"system": "Be long."})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "x", "video": "a.mp4"},
        {"video": "a.mp4"},
        {"type": "input_audio", "input_audio": {"data": "QUJD"}},
        {"type": "video_url", "video_url": {"url": "a.mp4"}},
    ],
)
def test_parts_with_other_media_are_named(tmp_path, part):
    chat = [{"role": "user", "content": [part]}, CHAT[1]]
    with pytest.raises(DataError, match=r"a part (holds|is of type) '"):
        read(ChatDataset, tmp_path, {"messages": chat})

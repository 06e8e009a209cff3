"""Lost if these fail: a record that is read in part, and nobody is told.

Each record of the list is read whole, with all that it says and shows; or it is named, with what is
wrong; or a key of it that is not read is.
"""

import json
import re

import pytest

from coincide_pl.data.readers import ChatDataset, LlavaJson
from coincide_pl.errors import DataError

ASK = {"from": "human", "value": "<image>\nwhat?"}
TEXT = {"from": "human", "value": "hi"}
SAY = {"from": "gpt", "value": "ho"}
USER = {"role": "user", "content": "<image>what?"}
HI = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "ho"}
PART = {"type": "text", "text": "what?"}


def talk(*turns, **more):
    return {"conversations": [*turns], **more}


def chat(*messages, **more):
    return {"messages": [*messages], **more}


def parts(*some):
    return {"role": "user", "content": [*some]}


WHOLE = [  # reader, record, its images, its texts by the first letter of who says them
    (LlavaJson, talk(ASK, SAY, image="a.png"), ["a.png"], "u<image>\nwhat?|aho"),
    (LlavaJson, talk(ASK, SAY, images=["a.png"]), ["a.png"], "u<image>\nwhat?|aho"),
    (LlavaJson, talk(TEXT, SAY, image="a.png"), ["a.png"], "u<image>\nhi|aho"),
    (LlavaJson, talk(TEXT, SAY, image=""), [], "uhi|aho"),
    (LlavaJson, talk(TEXT, SAY, image=None, video=None), [], "uhi|aho"),
    (LlavaJson, talk(TEXT, SAY, system="be brief"), [], "sbe brief|uhi|aho"),
    (LlavaJson, talk({"from": "system", "value": "s"}, TEXT, SAY), [], "ss|uhi|aho"),
    (LlavaJson, talk({"from": "USER", "value": "hi"}, SAY), [], "uhi|aho"),
    (LlavaJson, talk(SAY, TEXT, SAY), [], "uhi|aho"),  # counted, as a change
    (LlavaJson, talk(TEXT, SAY, TEXT), [], "uhi|aho"),  # counted, as a change
    (LlavaJson, talk(TEXT, {"from": "gpt", "value": "<video>"}), [], "uhi|a<video>"),
    (LlavaJson, talk(ASK, SAY, image="b\\a.png"), ["b/a.png"], "u<image>\nwhat?|aho"),
    (ChatDataset, chat(USER, BOT, images=["a.png"]), ["a.png"], "u<image>what?|aho"),
    (ChatDataset, chat(HI, BOT, images=["a.png", "b.png"]), ["a.png", "b.png"], None),
    (ChatDataset, chat(parts({"type": "image"}, PART), BOT, images=["a.png"]), ["a.png"], None),
    (ChatDataset, chat(parts({"type": "image", "image": "a.png"}, PART), BOT), ["a.png"], None),
    (ChatDataset, chat(parts({"type": "image", "path": "a.png"}, PART), BOT), ["a.png"], None),
    (ChatDataset, chat({"role": "system", "content": "s"}, HI, BOT), [], "ss|uhi|aho"),
    (ChatDataset, talk(ASK, SAY, images=["a.png"], system="s"), ["a.png"], None),
    (ChatDataset, {"query": "q", "response": "r"}, [], "uq|ar"),
    (ChatDataset, {"query": "q", "response": "r", "history": [["a", "b"]]}, [], "ua|ab|uq|ar"),
    (ChatDataset, {"instruction": "i", "input": "x", "output": "o"}, [], "ui\nx|ao"),
    (ChatDataset, {"texts": [{"user": "u", "assistant": "a"}] * 2}, [], "uu|aa|uu|aa"),
    (ChatDataset, {"conversation": [{"human": "u", "assistant": "a"}]}, [], "uu|aa"),
    (ChatDataset, chat(HI, BOT, objects={"ref": [], "bbox": []}), [], "uhi|aho"),
    (ChatDataset, chat(HI, {**BOT, "tool_calls": None}), [], "uhi|aho"),
]
NAMED = [
    (LlavaJson, talk(TEXT, SAY, video="a.mp4"), "'video' holds media"),
    (LlavaJson, talk(TEXT, SAY, audio="a.wav"), "'audio' holds media"),
    (LlavaJson, talk(TEXT, SAY, image="a.png", images=["b.png"]), "are not the same"),
    (LlavaJson, talk({"from": "human", "value": "<video>\nso?"}, SAY), "shows media by '<video>'"),
    (LlavaJson, talk({"from": "human", "value": "<audio>"}, SAY), "shows media by '<audio>'"),
    (LlavaJson, talk(ASK, SAY), "1 <image> marks but 0 images"),
    (LlavaJson, talk(ASK, SAY, ASK, SAY, image="a.png"), "2 <image> marks but 1 images"),
    (LlavaJson, talk(TEXT), "no answer"),
    (LlavaJson, talk(TEXT, {"from": "gpt", "value": " "}), "every answer is empty"),
    (LlavaJson, talk(TEXT, TEXT, SAY), "must alternate"),
    (LlavaJson, talk(TEXT, {"from": "tool", "value": "x"}, SAY), "'from' 'tool'; known are"),
    (LlavaJson, talk(TEXT, {**SAY, "weight": 0}), "turn 1 has 'weight' 0"),
    (LlavaJson, talk(TEXT, {"from": "gpt", "value": 3}), "must have a 'value' that is text"),
    (LlavaJson, talk(TEXT, SAY, image=3), "must be a path or a list of paths"),
    (LlavaJson, talk(TEXT, SAY, image="../a.png"), "leads outside the image folder"),
    (LlavaJson, talk(TEXT, SAY, image="https://x.org/a.png"), "images must be on disk"),
    (LlavaJson, talk(TEXT, SAY, tools="[]"), "'tools' is not read"),
    (LlavaJson, talk(), "no 'conversations'"),
    (LlavaJson, chat(HI, BOT), "but 'messages': ChatDataset reads that"),
    (LlavaJson, 3, "is a int, not an object"),
    (LlavaJson, talk(TEXT, SAY, id=[1]), "'id' must be text or a number"),
    (ChatDataset, chat(USER, BOT), "shows image 1 of 0"),
    (ChatDataset, chat(parts({"type": "video", "video": "a.mp4"}), BOT), "a part holds 'video'"),
    (ChatDataset, chat(parts({"type": "audio"}), BOT), "a part is of type 'audio'"),
    (ChatDataset, chat(HI, {"role": "tool", "content": "x"}, BOT), "'role' 'tool'; known are"),
    (ChatDataset, chat(HI, {**BOT, "tool_calls": [1]}), "turn 1 has 'tool_calls'"),
    (ChatDataset, chat(HI, {**BOT, "reasoning_content": "hm"}), "turn 1 has 'reasoning_content'"),
    (ChatDataset, chat(HI, BOT, videos=["a.mp4"]), "'videos' holds media"),
    (ChatDataset, chat(USER, BOT, images=["https://x.org/a.png"]), "images must be on disk"),
    (ChatDataset, chat(USER, BOT, images=[3]), "an image must be a path or bytes"),
    (
        ChatDataset,
        chat({"role": "user", "content": "<bbox>?"}, BOT, objects={"bbox": [[1, 2, 3, 4]]}),
        "'objects' is not read",
    ),
    (ChatDataset, {"texts": [{"user": "u"}]}, "pair 0 must have 'user' and 'assistant'"),
    (ChatDataset, {"query": "q"}, "must have a 'content' that is text"),
    (ChatDataset, {"text": "words"}, "no 'messages'"),
]
COUNTED = [
    (LlavaJson, talk(TEXT, SAY, width=8, caption="a dog", empty="")),
    (ChatDataset, chat(HI, BOT, width=8, caption="a dog", empty=[])),
]


def write(tmp_path, item):
    (tmp_path / "data.json").write_text(json.dumps([item]))
    return str(tmp_path / "data.json")


@pytest.mark.parametrize(("reader", "item", "images", "texts"), WHOLE)
def test_it_is_read_whole(tmp_path, reader, item, images, texts):
    (record,) = reader(write(tmp_path, item))
    assert [*record.images] == images
    if texts is not None:
        assert "|".join(turn.role[0] + turn.text for turn in record.turns) == texts
    assert sum(turn.text.count("<image>") for turn in record.turns) == len(record.images)


@pytest.mark.parametrize(("reader", "item", "said"), NAMED)
def test_it_is_named(tmp_path, reader, item, said):
    with pytest.raises(DataError, match=re.escape(said)) as error:
        list(reader(write(tmp_path, item)))
    assert str(error.value).startswith(f"{tmp_path}/data.json: record 0")


@pytest.mark.parametrize(("reader", "item"), COUNTED)
def test_what_is_not_read_of_it_is_counted(tmp_path, reader, item, caplog):
    caplog.set_level("INFO")
    records = reader(write(tmp_path, item)).records(tmp_path / "cache")
    assert len(records) == 1
    (line,) = records.notes.messages
    assert line.startswith("what stands under these keys is not read: ")
    assert {"'width' (1 records)", "'caption' (1 records)"} == {
        *line.partition(": ")[2].split(", ")
    }
    assert line in caplog.text

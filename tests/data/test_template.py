"""Lost if these fail: prompts that are the template's own, whatever anybody typed."""

import pytest

from coincide_pl.data.record import Turn
from coincide_pl.data.template import Spoken, Template
from coincide_pl.errors import ModelError
from coincide_pl.models.processors import load_processor

CHATML = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\n' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<image>' }}{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
)
TRIMS = CHATML.replace("{{ part.text }}", "{{ part.text | trim }}")
ASKED = (Turn("user", "<image>\nwhat is it?"), Turn("assistant", "red"))


@pytest.fixture
def template(tiny):
    """Makes the template of a tiny LLaVA's processor, with another text if one is given."""

    def make(text=None, **named):
        processor = load_processor(tiny)
        if text is not None:
            processor.chat_template = processor.tokenizer.chat_template = text
        return Template(processor, **named)

    return make


def joined(pieces, spoken):
    texts = [one.text for one in spoken]
    return "".join(a + b for a, b in zip(pieces, [*texts, ""], strict=True))


def test_pieces_and_what_is_said_make_the_text_that_the_template_writes(template):
    for text in (None, CHATML, TRIMS):
        made = template(text)
        pieces, spoken, _ = made.render(ASKED)
        messages = [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        ]
        own = made.tokenizer.apply_chat_template(messages, chat_template=made.jinja, tokenize=False)
        assert joined(pieces, spoken) == own
        assert spoken == [Spoken("user", "what is it?"), Spoken("assistant", "red")]


def test_the_end_of_an_answer_is_what_the_template_prints_after_the_last(template):
    _, _, end = template(CHATML).render(ASKED)
    assert end == "<|im_end|>"
    longer = (*ASKED, Turn("user", "and big?"), Turn("assistant", "no"))
    assert template(CHATML).render(longer)[2] == "<|im_end|>"


def test_jinja_in_a_text_is_text(template):
    typed = "{{ 7 * 7 }} {% raise %}"
    pieces, spoken, _ = template(CHATML).render((Turn("user", typed), Turn("assistant", typed)))
    assert joined(pieces, spoken).count(typed) == 2


def test_an_image_stands_where_its_mark_is(template):
    pieces, spoken, _ = template(CHATML).render(
        (Turn("user", "is <image> like <image>?"), Turn("assistant", "yes"))
    )
    assert [one.text for one in spoken] == ["is", "like", "?", "yes"]
    assert "is <image> like <image>?" in joined(pieces, spoken)


def test_a_prompt_has_room_for_an_answer_that_is_empty(template):
    pieces, spoken, _ = template(CHATML).render(
        (Turn("user", "so?"), Turn("assistant", "")), to_answer=True
    )
    assert spoken[-1] == Spoken("assistant", "?")
    assert pieces[1].endswith("<|im_start|>assistant\n")


def test_what_can_not_be_a_template_is_named(template):
    with pytest.raises(ModelError, match=r"add a chat_template\.jinja to the checkpoint"):
        template("")
    with pytest.raises(ModelError, match=r"name it with the option data\.image_token"):
        template(CHATML.replace("<image>", "<picture>"))
    assert template(CHATML.replace("<image>", "<x>"), image_token="<x>").image_mark == "<x>"
    silent = CHATML.replace(
        "{{ part.text }}", "{{ part.text if message.role != 'system' else '' }}"
    )
    with pytest.raises(ModelError, match="turns by system, user, assistant"):
        template(silent).render((Turn("system", "be brief"), *ASKED))

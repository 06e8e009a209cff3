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
    "{%- endfor -%}{{ '</s>\n' }}{%- endfor -%}"
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
    assert end == "</s>"
    longer = (*ASKED, Turn("user", "and big?"), Turn("assistant", "no"))
    assert template(CHATML).render(longer)[2] == "</s>"


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


@pytest.mark.parametrize("after", ["", " ", "\n", "###\n"])
def test_an_answer_ends_also_where_the_template_writes_no_end_token(template, after):
    made = template(CHATML.replace("</s>\n", after.replace("\n", "\\n")))
    talk = (*ASKED, Turn("user", "and big?"), Turn("assistant", "no"))
    pieces, spoken, end = made.render(talk)
    text = joined(pieces, spoken)
    assert f"red{after.strip()}</s>" in text
    assert text.rstrip().endswith(f"no{after.strip()}</s>")
    assert text.count("</s>") == 2
    assert end == f"{after.strip()}</s>"


def test_an_end_token_between_turns_is_not_written_twice(template):
    between = "{{ '' if loop.last else '</s>' }}"
    made = template(CHATML.replace("{{ '</s>\n' }}", between))
    pieces, spoken, end = made.render((*ASKED, Turn("user", "and big?"), Turn("assistant", "no")))
    text = joined(pieces, spoken)
    assert text.count("red</s>") == text.count("no</s>") == 1
    assert text.endswith("no</s>")
    assert end == "</s>"


def test_without_any_end_token_there_is_a_warning(tiny, caplog):
    processor = load_processor(tiny)
    processor.chat_template = CHATML.replace("</s>\n", "")
    processor.tokenizer.eos_token = None
    Template(processor)
    assert "a model that is finetuned with them never stops" in caplog.text


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_date_is_the_same_every_day(template, quote):
    made = template(f"{{{{ strftime_now({quote}%d %b %Y{quote}) }}}} {CHATML}")
    pieces, _, _ = made.render(ASKED)
    assert pieces[0].startswith("26 Jul 2024<|im_start|>")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("{{ strftime_now(now) }}", "writes something else each time"),
        ("{{ [1, 2] | random }}", "writes something else each time"),
        ("{{ 'x' * 10**10 }}", "writes without bounds"),
        ("{{ 'x' * 10**9 }}", "writes without bounds"),
        ("{% for i in range(20000) %}{{ 'x' * 1000 }}{% endfor %}", "writes without bounds"),
        ("{% if %}", "the chat template, line 1: Expected an expression"),
        ("{{ raise_exception('not today') }}", r"refuses turns by user, assistant \(not today\)"),
        ("{{ messages[9].content }}", "refuses turns by user, assistant"),
    ],
)
def test_what_a_template_must_not_do_is_named(template, before, said):
    with pytest.raises(ModelError, match=said):
        template(before + CHATML)


def test_a_role_that_a_template_refuses_is_named(template):
    refuses = (
        "{%- if messages[0].role == 'system' -%}{{ raise_exception('No system') }}{%- endif -%}"
    )
    made = template(refuses + CHATML)
    made.render(ASKED)
    with pytest.raises(ModelError, match=r"refuses turns by system, user, assistant \(No system\)"):
        made.render((Turn("system", "be brief"), *ASKED))


def test_a_template_for_text_alone_is_named(template):
    text_only = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    )
    for text in (text_only, text_only.replace(" + m['content'] + ", " }}{{ m['content'] }}{{ ")):
        with pytest.raises(ModelError, match="takes text alone, so it can't be used with images"):
            template(text)


def test_a_template_that_takes_text_from_the_assistant_is_given_text(template):
    mixed = CHATML.replace(
        "{%- for part in message.content -%}",
        "{%- if message.role == 'assistant' -%}{{ message.content }}{%- else -%}"
        "{%- for part in message.content -%}",
    ).replace("{%- endfor -%}{{ '</s>", "{%- endfor -%}{%- endif -%}{{ '</s>")
    pieces, spoken, _ = template(mixed).render(ASKED)
    assert joined(pieces, spoken) == joined(*template(CHATML).render(ASKED)[:2])

"""Render a chat template that came with a checkpoint: the same every day, and within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

import jinja2

from coincide_pl.errors import ModelError

DAY = datetime(2024, 7, 26)
"""The date that templates write as today's, so that tokens are the same tomorrow. It is the one
that Llama's own templates write where they are given none."""
MEMORY = 512 << 20
"""Bytes that rendering may take."""
LONGEST = 10_000_000
"""Characters of a rendered text, at most."""

NOW = re.compile(r"""strftime_now\(\s*("[^"\\]*"|'[^'\\]*')\s*\)""")
DRAWN = re.compile(r"\|\s*random\b|\blipsum\s*\(|\bcycler\s*\(\s*\)")

Message = dict[str, object]


class ChatTokenizer(Protocol):
    """A tokenizer of transformers, as far as chat templates go."""

    def apply_chat_template(
        self, conversation: list[Message], *, chat_template: str, tokenize: bool
    ) -> str:
        """Renders a conversation."""


def same_every_time(template: str) -> str:
    """A template that writes a fixed date where it would write today's.

    Args:
        template: in Jinja.

    Raises:
        ModelError: it writes something else each time in another way.
    """

    def fixed(call: re.Match[str]) -> str:
        return repr(DAY.strftime(call[1][1:-1]))

    template = NOW.sub(fixed, template)
    if found := DRAWN.search(template) or re.search(r"strftime_now\s*\(", template):
        raise ModelError(
            f"the chat template writes something else each time ({found[0].strip()}); "
            "give the checkpoint a chat_template.jinja without that"
        )
    return template


def rendered(tokenizer: ChatTokenizer, template: str, messages: list[Message]) -> str:
    """The text that a template makes of a conversation.

    Args:
        tokenizer: whose special tokens the template may write.
        template: in Jinja.
        messages: the conversation.

    Raises:
        ModelError: the template is not Jinja, refuses the conversation, or writes without bounds.
    """
    try:
        with bounded_memory(MEMORY):
            text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(f"the chat template, line {error.lineno}: {error.message}") from error
    except (MemoryError, OverflowError) as error:
        raise ModelError(WITHOUT_BOUNDS) from error
    except Exception as error:  # a template can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        roles = ", ".join(str(message["role"]) for message in messages[:4])
        more = ", …" if len(messages) > 4 else ""
        raise ModelError(f"the chat template refuses turns by {roles}{more} ({reason})") from error
    if len(text) > LONGEST:
        raise ModelError(WITHOUT_BOUNDS)
    return text


WITHOUT_BOUNDS = "the chat template writes without bounds; give the checkpoint another one"


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """While open, this process can take so much memory more and no more, where Linux allows that.

    Args:
        size: in bytes.
    """
    old = None
    with suppress(ImportError, OSError, ValueError):
        import resource

        old = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + size
        if old[0] == resource.RLIM_INFINITY or bound < old[0]:
            resource.setrlimit(resource.RLIMIT_AS, (bound, old[1]))
    try:
        yield
    finally:
        if old is not None:
            resource.setrlimit(resource.RLIMIT_AS, old)

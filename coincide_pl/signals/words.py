"""Which tokens are English function words or punctuation, told from the tokens alone.

All parts of speech that DICS counts as functional are closed classes: determiners, prepositions,
conjunctions, pronouns, modal verbs, particles and punctuation. So a list of words stands for the
tagger (spaCy) that its authors use. A word that is now one and now another, such as `that` or
`down`, counts as functional wherever it stands; one that a tokenizer splits is not recognized.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

BY_CLASS = (
    # determiners (DT); `no` is left out, for as an answer it is none
    "a an the this that these those each every some any all both either neither another",
    # prepositions, and conjunctions that begin a clause (IN)
    "about above across after against along alongside although amid among amongst around as at",
    "atop because before behind below beneath beside besides between beyond by concerning despite",
    "during except for from if in inside into near of off on onto opposite out outside over past",
    "per since than though through throughout till toward towards under underneath unless unlike",
    "until up upon via whereas whether while with within without",
    # conjunctions (CC)
    "and but or nor so yet plus",
    # pronouns (PRP, PRP$, WP, WP$), and `which`, which the paper lists with them
    "i me my mine myself you your yours yourself yourselves he him his himself she her hers",
    "herself it its itself we us our ours ourselves they them their theirs themselves oneself",
    "who whom whose what which whatever whoever whichever",
    # modal verbs (MD)
    "can could may might must shall should will would ought",
    # particles (RP, TO)
    "to down away back",
)
FUNCTION_WORDS = frozenset(" ".join(BY_CLASS).split())
MARKERS = ("▁", "Ġ")
"""What stands for the blank before a word in the tokens of SentencePiece and of byte-level BPE."""


@dataclass(frozen=True)
class Vocabulary:
    """What is known of each token of a vocabulary, bool [V] each.

    Attributes:
        words: a function word, if the token is a whole word.
        punctuation: punctuation alone.
        goes_on: begins with a letter or digit, with no blank before it.
        ends_inside: ends with a letter or digit, so that a next token may go on with the word.
    """

    words: Tensor
    punctuation: Tensor
    goes_on: Tensor
    ends_inside: Tensor


def functional(input_ids: Tensor, tokenizer: Any) -> Tensor:
    """Which tokens are function words or punctuation.

    Args:
        input_ids: int64 [B, T].
        tokenizer: of transformers, which made them.

    Returns:
        bool [B, T]; never true for special tokens.
    """
    known = _vocabulary(tokenizer)
    ids = input_ids.cpu()
    before, inside = torch.zeros_like(ids, dtype=torch.bool), known.ends_inside[ids]
    before[:, 1:] = inside[:, :-1] & known.goes_on[ids][:, 1:]  # goes on with the word before
    after = torch.zeros_like(before)
    after[:, :-1] = before[:, 1:]
    whole = known.words[ids] & ~before & ~after
    return (whole | known.punctuation[ids]).to(input_ids.device)


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Any) -> Vocabulary:
    special = set(tokenizer.all_special_tokens)
    tokens = ["" if t in special else t for t in _tokens(tokenizer)]
    marked = any(token.startswith(MARKERS) for token in tokens)
    columns = []
    for token in tokens:
        text = token.lstrip("".join(MARKERS)) if marked else token.removeprefix("##")
        first, last = text[:1], text[-1:]
        begins = token.startswith(MARKERS) if marked else not token.startswith("##")
        columns.append(
            (
                text.lower() in FUNCTION_WORDS,
                bool(text) and all(letter in string.punctuation for letter in text),
                first.isascii() and first.isalnum() and not begins,
                last.isascii() and last.isalnum(),
            )
        )
    return Vocabulary(*torch.tensor(columns, dtype=torch.bool).T)


def _tokens(tokenizer: Any) -> list[str]:
    """The tokens by their numbers; a number that none has is empty."""
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    return [by_number.get(number, "") for number in range(max(by_number) + 1)]

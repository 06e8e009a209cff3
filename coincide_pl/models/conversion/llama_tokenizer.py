"""A fast tokenizer with the tokens of a SentencePiece model, as the original code has them."""

from __future__ import annotations

from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from coincide_pl.errors import ModelError
from coincide_pl.models.conversion.llava_checkpoints import Json

BLANK = "▁"


def llama_tokenizer(
    directory: Path, settings: Json, extra: dict[str, str]
) -> PreTrainedTokenizerFast:
    """The tokenizer of a Llama or Vicuna checkpoint that has `tokenizer.model`.

    Tokens are those of transformers' slow `LlamaTokenizer`, which the originals use: merges in the
    order of the model's scores, a blank in front of every text, and with `legacy` (an old setting
    that LLaVA-1.5's tokenizer has and Vicuna-1.5's has not) after every control token, too.

    Args:
        directory: the checkpoint.
        settings: its tokenizer_config.json.
        extra: further control tokens by what they are for, such as `image_token`.

    Raises:
        ModelError: `tokenizer.model` can't be read.
    """
    path = directory / "tokenizer.model"
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: not a SentencePiece model") from error
    backend = Tokenizer(_bpe(model))
    if settings.get("legacy", True):
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    control = [model.id_to_piece(i) for i in range(3)]  # <unk>, <s>, </s>
    added = settings.get("added_tokens_decoder", {})
    more = [added[key]["content"] for key in sorted(added, key=int)]
    tokens = [AddedToken(t, normalized=False, special=True) for t in dict.fromkeys(control + more)]
    backend.add_special_tokens(tokens)
    unknown, begin, end = control
    backend.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
    )
    pad = settings.get("pad_token") or unknown
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        pad_token=pad if isinstance(pad, str) else pad["content"],
        extra_special_tokens=extra,
        model_max_length=min(settings.get("model_max_length") or 1 << 30, 1 << 30),
        clean_up_tokenization_spaces=False,
    )


def _bpe(model: SentencePieceProcessor) -> models.BPE:
    pieces = {model.id_to_piece(i): i for i in range(model.vocab_size())}
    plain = {p: i for p, i in pieces.items() if not (model.is_byte(i) or model.is_control(i))}
    merges = [
        (-model.get_score(number), plain[piece[:at]], plain[piece[at:]], piece[:at], piece[at:])
        for piece, number in plain.items()
        for at in range(1, len(piece))
        if piece[:at] in plain and piece[at:] in plain
    ]
    return models.BPE(
        pieces,
        [merge[3:] for merge in sorted(merges)],
        unk_token=model.id_to_piece(model.unk_id()),
        fuse_unk=True,
        byte_fallback=True,
    )

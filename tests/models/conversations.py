"""Conversations about one image, none, two, and one without an answer; how a model reads them."""

import numpy as np
import torch
from PIL import Image

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records

RECORDS = [
    Record("a", ("0.png",), (Turn("user", "<image>\nwhat is it?"), Turn("assistant", "red"))),
    Record("b", (), (Turn("user", "how are you?"), Turn("assistant", "fine, thanks"))),
    Record(
        "c",
        ("1.png", "0.png"),
        (
            Turn("system", "Be brief."),
            Turn("user", "one <image> or <image> two"),
            Turn("assistant", "one"),
            Turn("user", "sure?"),
            Turn("assistant", "yes, I am"),
        ),
    ),
    Record("d", ("0.png",), (Turn("user", "which\n<image>"), Turn("assistant", ""))),
]


def write_records(folder):
    """The conversations, and their two images."""
    random = np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)
    return Records.write(folder / "r.arrow", RECORDS, image_root=folder)


def batches(module, records, max_length=2048):
    """As a run of `predict` makes them."""
    return EncodedBatches(
        records, Encoder(module.processor, max_length), rewritings=module.rewritings
    )


def answer_losses(model, inputs, labels):
    """-log p of each answer token."""
    with torch.no_grad():
        log_p = model(**inputs).logits[0].double().log_softmax(-1)
    places = [at for at, label in enumerate(labels.tolist()) if label != IGNORE]
    losses = [-log_p[at - 1, labels[at]] for at in places]
    return torch.stack(losses) if losses else torch.zeros(1)

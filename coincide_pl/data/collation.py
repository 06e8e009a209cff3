"""Make a batch: open and process each distinct image once, encode, pad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from coincide_pl.data.encoding import IGNORE, EncodedImage, Encoder, Encoding
from coincide_pl.data.images import open_image
from coincide_pl.data.record import UNNAMED, Record, Unusable
from coincide_pl.data.records import Records
from coincide_pl.data.rewriting import Rewriting
from coincide_pl.errors import DataError, ModelError

REFUSED = "with an image that the processor refuses"
"""Kind of an unusable image."""
Images = dict[tuple[str, Rewriting | None], EncodedImage]
"""Processed images by path, and by the rewriting that changes them, if one does."""


@dataclass
class Batch:
    """B conversations, padded to T tokens.

    Attributes:
        rows: int64 [B], which records.
        input_ids: int64 [B, T].
        attention_mask: int64 [B, T], 0 at padding.
        labels: int64 [B, T], -100 where nothing is trained.
        columns: int64 [C], the places t at which some row's token t + 1 is trained.
        labeled: int64 [L], which of B * C pairs of row and column are trained, row by row.
        targets: int64 [L], the tokens there.
        image_mask: bool [B, T], see `Encoding`.
        text_mask: bool [B, T], see `Encoding`.
        image_inputs: the model's arguments for the distinct images, concatenated.
        blank_inputs: those for a blank image, where the batch has none and this is wanted.
        image_index: int64 [occurrences], the distinct image at each image mark, row by row.
        image_order: the same as a list, which needs no waiting for a GPU.
        num_images: distinct images.
        image_tokens: [num_images], tokens whose place each image's features take.
        sources: [B], each record's source; `UNNAMED` stands for none.
        answers: [B], each record's last answer.
        num_truncated: conversations that the maximum length cut.
        num_unlabeled: conversations without a token to train on.
        image_counts: int64 [B], images of each row that were kept.
        prefix: int64 [B], which of the distinct beginnings a row has: all tokens up to the end of
            its image. None where nothing is to be shared: rows all begin in another way, are padded
            on the left, or do not have one image each.
        prefix_lengths: int64 [U], tokens of the distinct beginnings.
        rewritten: the same conversations in other forms, where these are wanted.
        step_targets: tokens that are trained in all batches which this process accumulates into
            one optimizer step, where the loader says so.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    columns: Tensor
    labeled: Tensor
    targets: Tensor
    image_mask: Tensor
    text_mask: Tensor
    image_inputs: dict[str, Tensor]
    blank_inputs: dict[str, Tensor]
    image_index: Tensor
    image_order: list[int]
    num_images: int
    image_tokens: list[int]
    sources: list[str]
    answers: list[str]
    num_truncated: int
    num_unlabeled: int
    image_counts: Tensor
    prefix: Tensor | None
    prefix_lengths: Tensor | None
    rewritten: dict[Rewriting, Batch] = field(default_factory=dict)
    step_targets: int | None = None


class EncodedBatches(Dataset[Batch]):
    """Maps a list of row indices to the batch of these rows."""

    def __init__(
        self,
        records: Records,
        encoder: Encoder,
        prompts: bool = False,
        image_cache: int = 0,
        blanks: bool = False,
        rewritings: Sequence[Rewriting] = (),
    ) -> None:
        """Keeps the records and their encoder, to be sent to worker processes.

        Args:
            records: the data.
            encoder: turns a record into tokens.
            prompts: encode up to the last answer and pad on the left, as generation needs.
            image_cache: bytes of processed images that each process keeps for later batches.
            blanks: give batches without images a blank one, for the parts of a model that lies in
                pieces must run in all processes at once.
            rewritings: other forms of the conversations; each batch comes with one in each form.
        """
        self.blank: dict[str, Tensor] = {}
        if blanks:
            self.blank = encoder.encode_image(Image.new("RGB", (64, 64))).inputs
        self.records, self.encoder, self.prompts = records, encoder, prompts
        self.image_cache, self.rewritings = image_cache, tuple(rewritings)
        self._kept: dict[tuple[str, Rewriting | None], EncodedImage] = {}

    def __getitem__(self, rows: list[int]) -> Batch:
        """The batch of some rows: read, encoded and padded.

        Raises:
            DataError: an image can't be used; the record is named.
        """
        records = [self.records[row] for row in rows]
        images: Images = {}
        batch = self._batch(rows, records, images, None)
        batch.blank_inputs = {} if batch.num_images else self.blank
        for rewriting in self.rewritings:
            others = [rewriting.record(record) for record in records]
            batch.rewritten[rewriting] = self._batch(rows, others, images, rewriting)
        return batch

    def _batch(
        self, rows: list[int], records: list[Record], images: Images, form: Rewriting | None
    ) -> Batch:
        """The batch of some records; `images` are those that were processed, and get more."""
        changed = form if form is not None and form.image is not None else None
        encodings: list[Encoding] = []
        occurrences: list[str] = []
        encode = self.encoder.encode_prompt if self.prompts else self.encoder.encode
        for row, record in zip(rows, records, strict=True):
            for path in record.images:
                if (path, changed) not in images:
                    try:
                        images[path, changed] = self._image(path, changed)
                    except DataError as error:
                        name = self.records.name(row)
                        raise DataError(f"{name}: 'image': {error}") from error
            try:
                encoding = encode(record, [images[path, changed] for path in record.images])
            except ModelError as error:
                raise ModelError(f"{self.records.name(row)}: {error}") from error
            encodings.append(encoding)
            occurrences += record.images[: encoding.num_images]
        shown = {path: images[path, changed] for path in dict.fromkeys(occurrences)}
        return collate(rows, records, encodings, shown, occurrences, self._pad_id, self.prompts)

    def _image(self, path: str, changed: Rewriting | None) -> EncodedImage:
        if (path, changed) in self._kept:
            return self._kept[path, changed]
        change = None if changed is None else changed.image
        image = processed(self.encoder, self.records.image_root, path, change)
        size = image.tokens.nbytes + sum(value.nbytes for value in image.inputs.values())
        if size <= self.image_cache:  # what came first stays: an epoch comes back to all alike
            self.image_cache -= size
            self._kept[path, changed] = image
        return image

    @property
    def _pad_id(self) -> int:
        return getattr(self.encoder.tokenizer, "pad_token_id", None) or 0


def processed(
    encoder: Encoder,
    root: Path,
    path: str,
    change: Callable[[Image.Image], Image.Image] | None = None,
) -> EncodedImage:
    """An image of a data set as the model reads it.

    Args:
        encoder: with the processor.
        root: the image folder.
        path: of the image within it.
        change: makes another image of it first.

    Raises:
        Unusable: the image can't be opened, or the processor refuses it.
    """
    image = open_image(root, path)
    image = image if change is None else change(image)
    try:
        return encoder.encode_image(image)
    except Exception as error:  # processors raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        size = f"{image.width} by {image.height} pixels"
        message = f"{root / path}: the processor refuses it ({size}: {reason})"
        raise Unusable(REFUSED, message) from error


def collate(
    rows: list[int],
    records: list[Record],
    encodings: list[Encoding],
    images: dict[str, EncodedImage],
    occurrences: list[str],
    pad_id: int,
    left: bool,
) -> Batch:
    """The batch of some encodings: padded, with the images that occur stacked.

    Args:
        rows: of the records.
        records: in the same order.
        encodings: of the records.
        images: all that the records show, by path.
        occurrences: the path of the image at each image mark that was kept, row by row.
        pad_id: the token that fills rows up.
        left: whether to fill them up on the left, as generation needs.
    """
    distinct = {path: number for number, path in enumerate(dict.fromkeys(occurrences))}
    length = max(len(e.input_ids) for e in encodings)

    def padded(values: Sequence[npt.NDArray[np.generic]], fill: int | bool) -> Tensor:
        out = np.full((len(values), length), fill, values[0].dtype)
        for row, value in zip(out, values, strict=True):
            row[slice(length - len(value), None) if left else slice(len(value))] = value
        return torch.from_numpy(out)

    labels = padded([e.labels for e in encodings], IGNORE)
    columns, labeled, targets = targets_of(labels)
    prefix, prefix_lengths = shared_beginnings(encodings, occurrences, left)
    used = [images[path].inputs for path in distinct]
    order = [distinct[path] for path in occurrences]
    return Batch(
        rows=torch.tensor(rows, dtype=torch.int64),
        input_ids=padded([e.input_ids for e in encodings], pad_id),
        attention_mask=padded([np.ones(len(e.input_ids), np.int64) for e in encodings], 0),
        labels=labels,
        columns=columns,
        labeled=labeled,
        targets=targets,
        image_mask=padded([e.image_mask for e in encodings], False),
        text_mask=padded([e.text_mask for e in encodings], False),
        image_inputs={key: stacked(key, used) for key in (used[0] if used else {})},
        blank_inputs={},
        image_index=torch.tensor(order, dtype=torch.int64),
        image_order=order,
        num_images=len(distinct),
        image_tokens=[images[path].num_features for path in distinct],
        sources=[record.source or UNNAMED for record in records],
        answers=[record.turns[-1].text for record in records],
        num_truncated=sum(e.truncated for e in encodings),
        num_unlabeled=sum(bool((e.labels == IGNORE).all()) for e in encodings),
        image_counts=torch.tensor([e.num_images for e in encodings], dtype=torch.int64),
        prefix=prefix,
        prefix_lengths=prefix_lengths,
    )


def targets_of(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is trained on, by place: `columns`, `labeled` and `targets` of a `Batch`.

    They are worked out here, for on a GPU finding places makes the program wait.

    Args:
        labels: int64 [B, T], of the batch.
    """
    wanted = labels[:, 1:]
    columns = (wanted != IGNORE).any(0).nonzero()[:, 0]
    wanted = wanted[:, columns].flatten()
    labeled = (wanted != IGNORE).nonzero()[:, 0]
    targets = wanted[labeled]
    return columns, labeled, targets


def shared_beginnings(
    encodings: list[Encoding], occurrences: list[str], left: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Which rows begin alike: `prefix` and `prefix_lengths` of a `Batch`.

    Args:
        encodings: its rows.
        occurrences: the path of the image at each image mark, row by row.
        left: whether the rows are padded on the left.
    """
    found: dict[tuple[str, bytes], int] = {}
    prefix, lengths = [], []
    if not left and all(encoding.num_images == 1 for encoding in encodings):
        for path, encoding in zip(occurrences, encodings, strict=True):
            places = np.flatnonzero(encoding.image_mask)
            length = int(places[-1]) + 1 if len(places) else 0
            key = (path, encoding.input_ids[:length].tobytes())
            if key not in found:
                lengths.append(length)
            prefix.append(found.setdefault(key, len(found)))
    longest = max(len(encoding.input_ids) for encoding in encodings)
    if len(found) == len(prefix) or not 0 < min(lengths, default=0) <= max(lengths) < longest:
        return None, None
    return torch.tensor(prefix), torch.tensor(lengths)


def stacked(key: str, inputs: list[dict[str, Tensor]]) -> Tensor:
    """One image argument of several images; smaller ones are filled up with zeros.

    Images that are cut into tiles come as [1, tiles, ...] with as many tiles as each needs; models
    that read them so know from the image's size, or from the zeros, which are there.
    """
    try:
        values = [item[key] for item in inputs]
        shape = [max(sizes) for sizes in zip(*(v.shape[1:] for v in values), strict=True)]
    except (ValueError, KeyError) as error:
        raise DataError(f"images of one batch give {key!r} of different kinds") from error
    out: Tensor = values[0].new_zeros((sum(len(v) for v in values), *shape))
    start = 0
    for value in values:
        inside = tuple(slice(0, size) for size in value.shape[1:])
        out[(slice(start, start + len(value)), *inside)] = value
        start += len(value)
    return out

"""Readers: one class per data format, and what it takes to write another."""

from coincide_pl.data.readers.chat import ChatDataset
from coincide_pl.data.readers.easy_vqa import EasyVQA
from coincide_pl.data.readers.llava import LlavaJson
from coincide_pl.data.readers.mix import Mix
from coincide_pl.data.readers.questions import QuestionFile
from coincide_pl.data.readers.reader import Reader
from coincide_pl.data.readers.shards import ShardDataset
from coincide_pl.data.record import Record, Turn, Unusable

__all__ = [
    "ChatDataset",
    "EasyVQA",
    "LlavaJson",
    "Mix",
    "QuestionFile",
    "Reader",
    "Record",
    "ShardDataset",
    "Turn",
    "Unusable",
]

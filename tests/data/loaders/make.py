"""Writes `loaders.json`: what other trainers' own loaders read of tests/data/formats.

Their code is run from checkouts, as it stands there; of modules that need a whole trainer, the one
class or function that reads is compiled alone. See README.md beside this for versions and command.
"""

from __future__ import annotations

import ast
import json
import math
import os
import random
import re
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import yaml

FORMATS = Path(__file__).parent.parent / "formats"
Conversation = dict[str, object]


def part(file: Path, *names: str, **known: object) -> SimpleNamespace:
    """Classes and functions of a file, compiled without the rest of it."""
    tree = ast.parse(file.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    for node in tree.body:
        node.decorator_list = []
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef):
                inner.returns = None
                for argument in ast.walk(inner.args):
                    if isinstance(argument, ast.arg):
                        argument.annotation = None
    usual = {
        **{"json": json, "re": re, "math": math, "random": random, "os": os, "np": np},
        **{"yaml": yaml, "Path": Path, "Any": Any, "Dict": dict, "List": list},
        **{"rank0_print": print, "Dataset": object, "logger": MagicMock()},
    }
    space: dict[str, object] = {**usual, **known}
    exec(compile(tree, file, "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def spoken(images: Iterable[str], turns: Iterable[tuple[str, str]]) -> Conversation:
    """A conversation as `loaders.json` has it."""
    return {"images": [*images], "turns": [list(turn) for turn in turns]}


def listed(images: object) -> list[str]:
    """A path, or a list of paths, as a list."""
    return [images] if isinstance(images, str) else [*(images or [])]


def llava(item: dict[str, Any]) -> Conversation:
    """An item of LLaVA's form, of which its trainers keep these keys."""
    senders = {"human": "user", "gpt": "assistant"}
    turns = [(senders[turn["from"]], turn["value"]) for turn in item["conversations"]]
    return spoken(listed(item.get("image")), turns)


def llava_next(checkout: Path) -> dict[str, object]:
    """LLaVA-NeXT's data set of a list: which items, in what order."""
    kind = part(checkout / "llava/train/train.py", "LazySupervisedDataset").LazySupervisedDataset
    found: dict[str, object] = {}
    for strategy in ("all", "first:30%", "first:3", "first:99", "end:2", "end:99", "first:200%"):
        text = {"datasets": [{"json_path": "llava.json", "sampling_strategy": strategy}]}
        Path("list.yaml").write_text(yaml.safe_dump(text))
        read = kind("list.yaml", None, SimpleNamespace()).list_data_dict
        found[strategy] = [item["id"] for item in read]
    random.seed(0)
    read = kind("onevision.yaml", None, SimpleNamespace()).list_data_dict
    items = [llava(item | {"image": item.get("image")}) for item in read[:-2]]  # but what is random
    return {"sampling": found, "onevision.yaml": items, "count": len(read)}


def internvl(checkout: Path) -> dict[str, object]:
    """InternVL's data set of each entry of its meta file: which items, how often."""
    file = checkout / "internvl_chat/internvl/train/internvl_chat_finetune.py"
    kind = part(file, "LazySupervisedDataset", tcs_loader=None).LazySupervisedDataset
    tokenizer = SimpleNamespace(model_max_length=9)
    found = {}
    for times in (1, 2, 0.25, 0.5, 0.99):
        meta = {"root": "images/", "annotation": "internvl.jsonl"}
        read = kind("", meta, tokenizer, None, "", 0, repeat_time=times)
        found[str(times)] = sorted(json.loads(line)["id"] for line in read.raw_data)
    items = [llava(json.loads(line)) for line in read.raw_data]
    return {"repeat_time": found, "internvl.jsonl": items}


def qwen_vl(checkout: Path) -> dict[str, object]:
    """Qwen-VL finetune's messages of each item, packed ones one by one; and its shares."""
    data = checkout / "qwen-vl-finetune/qwenvl/data"
    build = part(data / "data_processor.py", "_build_messages", "_make_abs_paths")._build_messages
    rate = part(data / "__init__.py", "parse_sampling_rate").parse_sampling_rate

    def messages(item: dict[str, Any]) -> Conversation:
        turns, images = [], []
        for message in build(item, Path()):
            text = ""
            for one in message["content"]:
                if one["type"] == "image":
                    images.append(os.path.relpath(one["image"]))
                text += "<image>" if one["type"] == "image" else one["text"]
            turns.append((message["role"], text))
        return spoken(images, turns)

    found: dict[str, object] = {"rates": {n: rate(n) for n in ("a", "a%50", "a%1", "a%200")}}
    for name in ("qwen_vl.json", "qwen_vl_packed.json", "llava.json"):
        items = json.loads(Path(name).read_text())
        flat = [one for item in items for one in (item if isinstance(item, list) else [item])]
        if name == "qwen_vl.json":  # it reads `image` alone
            flat = [{**item, "image": item.get("image", item.get("images"))} for item in flat]
        found[name] = [messages(item) for item in flat]
    return found


def llama_factory(checkout: Path) -> dict[str, object]:
    """LLaMA-Factory's aligned conversations of each entry of a dataset_info.json."""
    sys.path.insert(0, str(checkout / "src"))
    for name in ("torchaudio", "trl", "av", "librosa", "fire", "omegaconf"):
        sys.modules.setdefault(name, MagicMock(__spec__=MagicMock(), __version__="9"))
    from llamafactory.data.converter import get_dataset_converter  # type: ignore[import-not-found]
    from llamafactory.data.parser import get_dataset_list  # type: ignore[import-not-found]

    found: dict[str, object] = {}
    for name in ("mllm_demo", "talks", "instructions"):
        (about,) = get_dataset_list([name], ".")
        convert = get_dataset_converter(about.formatting, about, SimpleNamespace(media_dir="."))
        rows = json.loads(Path(about.dataset_name).read_text())
        keys = {key for row in rows for key in row}
        aligned = [convert({key: row.get(key) for key in keys}) for row in deepcopy(rows)]
        found[name] = [
            spoken(
                [os.path.relpath(image) for image in row["_images"] or []],
                [
                    *([("system", row["_system"])] if row["_system"] else []),
                    *((turn["role"], turn["content"]) for turn in row["_prompt"]),
                    *((turn["role"], turn["content"]) for turn in row["_response"]),
                ],
            )
            for row in aligned
        ]
    return found


def swift(checkout: Path) -> dict[str, object]:
    """ms-swift's messages of each row."""
    file = checkout / "swift/dataset/preprocessor/core.py"
    names = ("RowPreprocessor", "ResponsePreprocessor", "AlpacaPreprocessor")
    tree = checkout / "swift/template/utils.py"
    join = part(tree, "history_to_messages", Optional=None, History=None, Messages=None)
    found: dict[str, object] = {}
    kinds = part(
        file,
        *(*names, "MessagesPreprocessor", "default_repair_messages"),
        **{"datasets": SimpleNamespace(__version__="5"), "ast": ast, "_pair_keys": []},
        **{"Optional": MagicMock(), "Union": MagicMock(), "Literal": MagicMock()},
        **{"Callable": MagicMock(), "DATASET_TYPE": None, "HfDataset": None},
        **{"chain": __import__("itertools").chain, "contextmanager": lambda f: f},
        **{"version": __import__("packaging.version").version},
        **{"history_to_messages": join.history_to_messages},
    )
    for name in (
        "swift_messages.jsonl",
        "swift_query.jsonl",
        "swift_sharegpt.jsonl",
        "alpaca.json",
    ):
        text = Path(name).read_text()
        rows = [*map(json.loads, text.splitlines())] if name.endswith("l") else json.loads(text)
        conversations = []
        for row in rows:
            read: Callable[..., Any] = kinds.ResponsePreprocessor()
            if "messages" in row or "conversation" in row:
                read = kinds.MessagesPreprocessor()
            elif "instruction" in row:
                read = kinds.AlpacaPreprocessor()
            images = row.pop("images", [])
            named = {read.columns.get(key, key): value for key, value in row.items()}
            if "instruction" in row:  # its own class reads these by their names
                named = row
            made = read.preprocess(deepcopy(named))["messages"]
            conversations.append(spoken(images, [(t["role"], t["content"]) for t in made]))
        found[name] = conversations
    return found


LOADERS = {
    "LLaVA-NeXT": llava_next,
    "InternVL": internvl,
    "Qwen3-VL": qwen_vl,
    "LLaMA-Factory": llama_factory,
    "ms-swift": swift,
}


def main() -> None:
    """Reads with each loader whose checkout is named."""
    parser = ArgumentParser()
    for name in LOADERS:
        parser.add_argument(f"--{name}", type=Path, required=True, help="its checkout")
    given = vars(parser.parse_args())
    target = Path(__file__).parent / "loaders.json"
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FORMATS, folder, dirs_exist_ok=True)
        os.chdir(folder)
        for name, read in LOADERS.items():
            found[name] = read(given[name.replace("-", "_")].resolve())
    target.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

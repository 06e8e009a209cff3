"""A sample of a tar shard as a row of the chat format."""

from __future__ import annotations

from coincide_pl.data.shards.packed import Packed
from coincide_pl.data.shards.tar import Sample, parsed

IMAGES = ("images", "image")
"""Keys under which a sample's JSON names its images."""
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "img", "image")
"""How the name of a member ends that is an image."""
OTHERS = {
    **dict.fromkeys(("mp4", "avi", "webm", "mkv", "mov"), "videos"),
    **dict.fromkeys(("wav", "mp3", "flac", "ogg", "m4a"), "audios"),
}
"""How the names of members end that nobody reads, and what they are."""


class TarItem(dict[str, object]):
    """A sample as an item, with its key, and what is wrong with it.

    Attributes:
        key: names it in its shard.
        fault: why it can't be read; empty where it can.
    """

    key = ""
    fault = ""


def item_of(shard: str, sample: Sample) -> TarItem:
    """A sample of a tar as a row of the chat format."""
    item = TarItem()
    try:
        content = None if sample.text is None else parsed(sample.text)
    except ValueError:
        item.fault = "its .json is not JSON"
        content = {}
    if isinstance(content, dict):
        item.update(content)
    elif isinstance(content, list):
        item["conversations"] = content
    else:
        endings = ", ".join(name.partition(".")[2] for name in sample.names) or "none"
        item.fault = f"has no .json with a conversation; its other members are {endings}"
    item.key = sample.key
    item.setdefault("id", sample.key)
    pictures: dict[str, str] = {}
    for name, offset, size in zip(sample.names, sample.offsets, sample.sizes, strict=True):
        ending = name.rpartition(".")[2].lower()
        if ending in PICTURES or ending.rstrip("0123456789") in PICTURES:
            pictures[name] = str(Packed(shard, name, offset, size))
        elif ending in OTHERS:
            item[OTHERS[ending]] = [name]
        else:  # not read, and so counted
            item[f".{name.rpartition('/')[2].partition('.')[2]}"] = name
    asked = next((item[name] for name in IMAGES if item.get(name)), None)
    for name in IMAGES:
        item.pop(name, None)
    item["images"] = named = _ordered(pictures, asked if isinstance(asked, list) else [asked])
    if named is None:
        item.fault = f"its .json names images of which the shard holds {len(pictures)}"
    return item


def _ordered(pictures: dict[str, str], asked: list[object]) -> list[str] | None:
    """A sample's images in the order in which its JSON names them; else in that of the tar.

    None where the JSON names others, and not as many as there are.
    """
    known: dict[str, str] = {}
    for name, packed in pictures.items():
        last = name.rpartition("/")[2]
        for form in (name, last, last.partition(".")[2]):
            known.setdefault(form, packed)
    names = [name for name in asked if isinstance(name, str)]
    found = [known.get(name) or known.get(name.rpartition("/")[2]) for name in names]
    named = [packed for packed in found if packed is not None]
    if named and len(named) == len(asked):
        return named
    return None if names and len(names) != len(pictures) else list(pictures.values())

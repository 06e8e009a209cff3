"""The generated parts of README.md: `python tests/faults/listing.py` writes the list of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from inputs import IMAGES, RECORDS

README = Path(__file__).with_name("README.md")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def inputs() -> str:
    """Every broken record and image with what it gets."""
    rows = [("records", case) for case in RECORDS] + [("image", case) for case in IMAGES]
    written = [
        (kind, case.name, case.gets or f"`error: … {case.said} …`".replace("|", r"\|"))
        for kind, case in rows
    ]
    return table(("what", "input", "gets"), written)


def with_part(text: str, name: str, content: str) -> str:
    """A README in which what stands between two marks is replaced."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(first)
    return f"{before}{first}\n{content}\n{last}{rest.split(last)[1]}"


if __name__ == "__main__":
    README.write_text(with_part(README.read_text(), "inputs", inputs()))

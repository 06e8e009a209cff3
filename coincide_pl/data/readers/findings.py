"""What a reading of a data set came upon: records that can't be used, and those that it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coincide_pl.errors import printable


@dataclass
class Findings:
    """Counts and places of what a reading came upon.

    Attributes:
        count: how many records there are.
        lines: why a record can't be used, by its number; file, number and id in front.
        kinds: how many records can't be used, by kind.
        changes: how many conversations were changed, by what was done to them.
    """

    count: int = 0
    lines: dict[int, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, kind: str, line: str) -> None:
        """Notes a record that can't be used; the first reason counts."""
        if number not in self.lines:
            self.lines[number] = line
            self.kinds[kind] += 1

    def text(self) -> Iterator[str]:
        """The lines in the order of the records, ready to be written or printed."""
        for _, line in sorted(self.lines.items()):
            yield printable(line.encode(errors="replace").decode()) + "\n"

    def messages(self, listed: Path) -> list[str]:
        """A line for each change that was made, and one for all records that can't be used.

        Args:
            listed: the file that lists the records that can't be used.
        """
        lines = [f"{count:,} {what}" for what, count in self.changes.items()]
        if self.lines:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.items())
            left_out = f"left out {len(self.lines):,} of {self.count:,} records"
            lines.append(f"{left_out} ({kinds}); they are listed in {listed}")
        return lines

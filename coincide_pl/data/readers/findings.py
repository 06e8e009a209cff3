"""What a reading of a data set came upon: records that can't be used, and those that it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coincide_pl.errors import printable

MOST_KEYS, SHOWN = 1000, 12
"""Unread keys that are counted at most, and that are shown."""


@dataclass
class Findings:
    """Counts and places of what a reading came upon.

    Attributes:
        count: how many records there are.
        lines: why a record can't be used, by its number; file, number and id in front.
        kinds: how many records can't be used, by kind.
        changes: how many conversations were changed, by what was done to them.
        unread: how many records hold something under a key that is not read, by the key.
    """

    count: int = 0
    lines: dict[int, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, kind: str, line: str) -> None:
        """Notes a record that can't be used; the first reason counts."""
        if number not in self.lines:
            self.lines[number] = line
            self.kinds[kind] += 1

    def note_unread(self, keys: Iterable[str]) -> None:
        """Counts the keys of a record that hold something and are not read."""
        for key in keys:
            if key in self.unread or len(self.unread) < MOST_KEYS:
                self.unread[key] += 1

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
        if self.unread:
            keys = [f"{key[:40]!r} ({n:,} records)" for key, n in self.unread.most_common(SHOWN)]
            more = f" and {len(self.unread) - SHOWN} others" if len(self.unread) > SHOWN else ""
            lines.append(f"what stands under these keys is not read: {', '.join(keys)}{more}")
        if self.lines:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.items())
            left_out = f"left out {len(self.lines):,} of {self.count:,} records"
            lines.append(f"{left_out} ({kinds}); they are listed in {listed}")
        return lines

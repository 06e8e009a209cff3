"""Faults at random places and times over the whole path; `make soak` runs it.

The path is walked again and again, each stage with some faults before it may come to its end. After
each walk every result is compared with that of a walk without faults.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from harness import All, AtCall, Result, Runner
from listing import README, table, with_part
from stages import STAGES, TWO, Journey, write_data
from test_endings import PREDICT, STEP, TEST, SmallDisk
from test_kills import OFTEN

PLACES = ("os:replace", "os:write", "os:preadv", "os:fsync", "os:open", PREDICT, STEP, TEST)
PLACES += (
    "coincide_pl.selection.steps.cluster_order:ClusterOrder._read",
    "coincide_pl.selection.arrays.lloyd:unit_centroids",
)
KINDS = ("killed at a time", "killed at a call", "SIGTERM at a time", "disk full at a call")
TWO_KIND = "two processes, the first killed"


class Soak:
    """Walks and counts.

    Attributes:
        counts: how often each fault, stage and outcome came.
        kills: runs that were killed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.runner = Runner(folder)
        self.folder = folder
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.kills = self.walks = 0
        model = ("--hidden_size=32", "--vision_hidden_size=32", "--vision_num_layers=2")
        words = ("create-tiny-llava", f"--output={folder}/tiny", *model, "--image_size=32")
        assert self.runner(*words).status == 0
        self.whole = Journey(write_data(folder / "data"), f"{folder}/tiny", folder / "whole")
        self.seconds: dict[str, float] = {}
        for stage in STAGES:
            if stage == "compare":
                self.whole.make_whole()
            begin = time.monotonic()
            result = self.runner(*self.whole.words(stage))
            assert result.status == 0, result.message
            self.seconds[stage] = time.monotonic() - begin

    def walk(self) -> None:
        """The path once, with faults."""
        journey = Journey(self.whole.data, self.whole.model, self.folder / "walk")
        shutil.rmtree(journey.folder, ignore_errors=True)
        for stage in STAGES:
            if stage == "compare":
                journey.make_whole()
            for _ in range(int(self.random.integers(1, 5))):
                self.fault(journey, stage, str(self.random.choice(KINDS, p=(0.4, 0.4, 0.1, 0.1))))
            if stage in ("predict", "select") and self.random.random() < 0.15:
                self.fault(journey, stage, TWO_KIND)  # a fit goes on with as many processes only
            result = self.runner(*journey.words(stage))
            assert result.status == 0, (stage, result.message)
        assert journey.digests() == self.whole.digests(), (journey.digests(), self.whole.digests())
        assert not journey.leftovers(), journey.leftovers()
        self.walks += 1

    def fault(self, journey: Journey, stage: str, kind: str) -> None:
        """A stage once, with a fault."""
        words = journey.words(stage, *(TWO if kind == TWO_KIND else ()))
        if kind.endswith("call"):
            place = str(self.random.choice(PLACES))
            call = int(self.random.integers(1, 8))
            full = SmallDisk(int(self.random.integers(1, 4000))) if "disk" in kind else None
            result = self.runner(*words, fault=All((*OFTEN, AtCall(place, call, full))))
        else:
            running = self.runner.start(*words, fault=All(OFTEN))
            most = 12.0 if kind == TWO_KIND else 1.2 * self.seconds[stage]
            running.process.join(self.random.uniform(0, most))
            if running.process.exitcode is None:
                running.send(signal.SIGTERM if "SIGTERM" in kind else signal.SIGKILL)
            result = running.end()
        self.counts[kind, stage, outcome(result)] += 1
        self.kills += result.status == -signal.SIGKILL

    def table(self) -> str:
        """What came of it, in Markdown."""
        rows: list[tuple[str, str, int, str]] = []
        for kind in (*KINDS, TWO_KIND):
            for stage in STAGES:
                ends = {e: n for (k, s, e), n in self.counts.items() if (k, s) == (kind, stage)}
                outcomes = ", ".join(f"{n} {end}" for end, n in sorted(ends.items()))
                if ends:
                    rows.append((kind, stage, sum(ends.values()), outcomes))
        return table(("fault", "where", "how often", "outcome"), rows)


def outcome(result: Result) -> str:
    """How a run with a fault ended.

    Raises:
        AssertionError: in a way that no run may.
    """
    if result.status == 0:
        return "ended before it"
    if result.status == -signal.SIGKILL:
        return "killed"
    if result.status == -signal.SIGTERM and not result.line:
        return "ended before it had begun"
    assert result.is_clean, result.message
    return "ended with one line"


def main() -> None:
    """Runs until there were enough kills, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="puts the result into README.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.seed)
        begin = time.monotonic()
        while soak.kills < options.kills:
            soak.walk()
            print(f"{soak.walks} walks, {soak.kills} kills", file=sys.stderr, flush=True)
        spent = (time.monotonic() - begin) / 60
    summary = (
        f"`{Path(sys.executable).name} tests/faults/soak.py --kills={options.kills} "
        f"--seed={options.seed}`: {soak.walks} walks over the path in {spent:.0f} minutes, "
        f"{sum(soak.counts.values())} faults, {soak.kills} of them kills. After each walk "
        "activations, selection, finetuned weights and answers were the same, byte for byte, as "
        "without faults, and no file was left over.\n\n" + soak.table()
    )
    print(summary)
    if options.write:
        README.write_text(with_part(README.read_text(), "soak", summary))


if __name__ == "__main__":
    main()

"""Runs as rows of a comparison: seeds taken together, scores related to those on all data."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coincide_pl.errors import CoincideError
from coincide_pl.reporting.bootstrap import Floats, paired_difference
from coincide_pl.reporting.runs import START, FinishedRun

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One method at one fraction, over its seeds.

    Attributes:
        name: method and fraction, as tables and figures show them.
        method: the selector's name, with the options in which those of its kind differ.
        fraction: share of the data that is selected, in (0, 1].
        runs: one run per seed.
        scores: score by task, each [seeds], in [0, 1].
        mean: mean score over the tasks, [seeds].
        relative: mean over the tasks of score / the score on all data, [seeds]; None where no run
            is on all data, or it scores 0 in every task.
        difference: relative performance minus that of a random choice of as many, with the ends of
            its 95 % interval; None where no such choice is there, or its answers are not kept.
        seconds: seconds by stage, mean over the seeds, with all that the selection rests
            on.
    """

    name: str
    method: str
    fraction: float
    runs: list[FinishedRun]
    scores: dict[str, Floats]
    mean: Floats
    relative: Floats | None
    difference: tuple[float, float, float] | None
    seconds: dict[str, float]

    @property
    def by_stage(self) -> dict[str, float]:
        """Seconds by stage, of those that differ by a number alone, such as a checkpoint's, all."""
        together: dict[str, float] = {}
        for stage, seconds in self.seconds.items():
            name = re.sub(r"-[0-9]+(?= )", "", stage)
            together[name] = together.get(name, 0.0) + seconds
        return together

    @property
    def total(self) -> float:
        """Seconds of all stages together."""
        return sum(self.seconds.values())

    @property
    def whole(self) -> bool:
        """Whether the time of everything that the selection rests on is known."""
        return all(run.whole for run in self.runs)


def compared(runs: Sequence[FinishedRun]) -> list[Row]:
    """Group runs into rows, and relate their scores to those on all data.

    Returns:
        Rows by fraction, then in the order in which their runs are given; all data last.

    Raises:
        CoincideError: runs differ in data, start or recipe.
    """
    check(runs)
    runs = _named_by_signals(runs)
    groups: dict[tuple[str, str, float], list[FinishedRun]] = {}
    for run in runs:
        key = _choice(run)
        for other in groups.setdefault(key, []):
            if other.seed == run.seed:
                raise CoincideError(
                    f"{run.place}: the same choice and seed as {other.place}; name one"
                )
        groups[key].append(run)
    full = _scores_on_all_data(groups)
    random = {key[2]: group for key, group in groups.items() if key[0] == "Random"}
    rows = []
    for key, group in sorted(groups.items(), key=lambda item: item[0][2]):
        selector, _, fraction = key
        scores = _scores(group)
        timed = [run.seconds for run in group if run.seconds]
        stages = dict.fromkeys(stage for seconds in timed for stage in seconds)
        method = _method(group[0], runs)
        others = [] if selector == "Random" else random.get(fraction, [])
        ratios = [scores[task] / score for task, score in full.items()]
        rows.append(
            Row(
                method if fraction == 1 else f"{method} {100 * fraction:.3g} %",
                method,
                fraction,
                group,
                scores,
                np.mean(list(scores.values()), 0),
                np.mean(ratios, 0) if ratios else None,
                _difference(group, others, full) if full else None,
                {s: float(np.mean([seconds.get(s, 0.0) for seconds in timed])) for s in stages},
            )
        )
    return rows


def check(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs that differ in more than the choice of data.

    Raises:
        CoincideError: naming two runs, and in what they differ.
    """
    first = runs[0]
    for run in runs[1:]:
        where = f"{run.place} can't be compared with {first.place}:"
        if (run.questions, run.counts) != (first.questions, first.counts):
            raise CoincideError(f"{where} tested on other questions")
        if run.data != first.data:
            raise CoincideError(f"{where} chosen from other training data")
        names = dict.fromkeys([*first.recipe, *run.recipe])
        if run.start and first.start:
            names.pop(START, None)
            if run.start != first.start:
                a, b = run.recipe.get(START), first.recipe.get(START)
                raise CoincideError(f"{where} its start is {a}, not {b}, which holds other weights")
        differing = [n for n in names if run.recipe.get(n) != first.recipe.get(n)]
        if differing:
            message = [
                f"{n} is {_short(run.recipe.get(n))}, not {_short(first.recipe.get(n))}"
                for n in differing
            ]
            raise CoincideError(f"{where} {'; '.join(message)}")


def _short(value: object) -> str:
    """A value as text, not much longer than a line."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _choice(run: FinishedRun) -> tuple[str, str, float]:
    """How a run chose its data: selector, its options, and the fraction."""
    return run.selector, repr(sorted(run.options.items())), round(run.fraction, 4)


def _named_by_signals(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs, with their signals as an option where one choice and seed has read several."""
    read: dict[tuple[tuple[str, str, float], int], set[str]] = {}
    for run in runs:
        read.setdefault((_choice(run), run.seed), set()).add(run.signals)
    several = {choice[0] for (choice, _), names in read.items() if len(names) > 1}
    return [
        replace(run, options={**run.options, "signals": run.signals})
        if run.selector in several
        else run
        for run in runs
    ]


def _scores(group: list[FinishedRun]) -> dict[str, Floats]:
    """Scores of a row's runs by task, each [seeds]."""
    return {task: np.array([run.scores[task] for run in group]) for task in group[0].scores}


def _scores_on_all_data(
    groups: dict[tuple[str, str, float], list[FinishedRun]],
) -> dict[str, float]:
    """Mean scores on all data by task, those above 0; none where there is no such run."""
    whole = next((group for key, group in groups.items() if key[2] == 1), None)
    if whole is None:
        log.warning("relative performance is left out: none of the runs is on all data")
        return {}
    full = {task: float(values.mean()) for task, values in _scores(whole).items()}
    nothing = [task for task, score in full.items() if score <= 0]
    if len(nothing) == len(full):
        log.warning("relative performance is left out: %s: 0 in every task", whole[0].place)
    elif nothing:
        log.warning("relative leaves out where all data score 0: %s", ", ".join(nothing))
    return {task: score for task, score in full.items() if score > 0}


def _difference(
    group: list[FinishedRun], random: list[FinishedRun], full: dict[str, float]
) -> tuple[float, float, float] | None:
    """Difference of a row to random runs of the same seeds, with the ends of its interval."""
    theirs = {run.seed: run.correct for run in random}
    pairs = [(run.correct, theirs.get(run.seed)) for run in group]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    kept = {
        task: score for task, score in full.items() if all(task in a and task in b for a, b in both)
    }
    if not both or not kept:
        return None
    if unlike := sorted(full.keys() - kept.keys()):
        log.warning(
            "%s: the difference to Random leaves out %s: no answers, or a score that is not their "
            "mean",
            *(group[0].place, ", ".join(unlike)),
        )
    return paired_difference([a for a, _ in both], [b for _, b in both], kept)


def _method(run: FinishedRun, runs: Sequence[FinishedRun]) -> str:
    """The selector's name, and the options in which those of its kind differ."""
    alike = [other.options for other in runs if other.selector == run.selector]
    differing = [n for n in run.options if any(o.get(n) != run.options[n] for o in alike)]
    options = ", ".join(f"{name}={run.options[name]}" for name in differing)
    return f"{run.selector} ({options})" if options else run.selector

"""Compare selections: how much they share, and what one picks that another does not."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coincide_pl.errors import CoincideError
from coincide_pl.files import write_text
from coincide_pl.reporting.bootstrap import Floats
from coincide_pl.reporting.escape import spreadsheet, terminal
from coincide_pl.reporting.figure import draw_matrix
from coincide_pl.reporting.origin import Origin, selection_file
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import Selection


def overlap(selections: list[str], output: str = "overlap", run_config: str | None = None) -> None:
    """Compare selections of the same data: how much they share, and where they differ.

    Writes `overlap.csv`, `.md` and `.png`, the Jaccard index of each pair (samples that both pick /
    samples that either picks), and `differences.csv`: for each pair, how many samples the first
    picks and the second does not, by source and, where the first has clusters, by cluster.

    Args:
        selections: selection files, or the runs' directories that they lie in.
        output: folder for these files.
        run_config: config of a run, for the sources of the data (default: `fit.yaml` or
            `select.yaml` beside the first selection).

    Raises:
        CoincideError: a selection can't be read, or two are of different data.
    """
    if len(selections) < 2:
        raise CoincideError("name at least two selections")
    places = [selection_file(name) for name in selections]
    names = names_of(places)
    chosen = [Selection.load(place) for place in places]
    for name, other in zip(names, chosen, strict=True):
        if other.made_from.get("data") != chosen[0].made_from.get("data"):
            raise CoincideError(f"{name} and {names[0]} are selections of different data")
    records = Origin.of(chosen[0], run_config).records
    matrix = jaccard(chosen)
    table = Table(
        "Jaccard index in %",
        ["selection", *names],
        [[name, *(f"{100 * x:.1f}" for x in row)] for name, row in zip(names, matrix, strict=True)],
    )
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["selection", *map(spreadsheet, names)])
    out.writerows(
        [spreadsheet(name), *(f"{x:.6f}" for x in row)]
        for name, row in zip(names, matrix, strict=True)
    )
    folder = Path(output)
    write_text(folder / "overlap.csv", text.getvalue())
    write_text(folder / "overlap.md", table.markdown())
    write_text(folder / "differences.csv", differences(names, chosen, records.sources))
    draw_matrix(matrix, names, folder / "overlap.png")
    console = terminal()
    if table.fits(console.width):
        console.print(table.rich())
    else:
        console.print(numbered(names, matrix).rich(dense=True))
    files = ("overlap.csv", "overlap.md", "overlap.png", "differences.csv")
    console.print("wrote " + ", ".join(str(folder / name) for name in files), soft_wrap=True)


def numbered(names: Sequence[str], matrix: Floats) -> Table:
    """The table for a narrow terminal: a column has the number of its row instead of a name."""
    numbers = [str(i + 1) for i in range(len(names))]
    lines = [
        [f"{number} {name}", *(f"{100 * x:.0f}" for x in row)]
        for number, name, row in zip(numbers, names, matrix, strict=True)
    ]
    return Table("Jaccard index in %", ["selection", *numbers], lines)


def jaccard(chosen: Sequence[Selection]) -> Floats:
    """Jaccard index |A ∩ B| / |A ∪ B| of each pair, float64 [n, n]."""
    matrix = np.eye(len(chosen))
    for i, j in itertools.combinations(range(len(chosen)), 2):
        a, b = chosen[i].indices, chosen[j].indices
        both = len(np.intersect1d(a, b, assume_unique=True))
        matrix[i, j] = matrix[j, i] = both / (len(a) + len(b) - both)
    return matrix


def differences(names: Sequence[str], chosen: Sequence[Selection], sources: Sequence[str]) -> str:
    """A CSV table of what each selection picks and each other one does not.

    Its columns are `first`, `second`, `by` (source or cluster), the `name` of that, the number of
    its samples that the first has `picked`, and how many of these are `not by second`.
    """
    named = np.array(sources)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["first", "second", "by", "name", "picked", "not by second"])
    for i, j in itertools.permutations(range(len(chosen)), 2):
        own = chosen[i].indices
        alone = np.setdiff1d(own, chosen[j].indices, assume_unique=True)
        groups = {"source": named}
        labels = chosen[i].labels
        if labels is not None:
            groups["cluster"] = labels
        for by, group in groups.items():
            picked, only = Counter(group[own].tolist()), Counter(group[alone].tolist())
            for name, count in sorted(picked.items(), key=lambda item: (-only[item[0]], item[0])):
                cells = (names[i], names[j], by, str(name))
                out.writerow([*map(spreadsheet, cells), count, only[name]])
    return text.getvalue()


def names_of(places: Sequence[Path]) -> list[str]:
    """Names of the runs' directories, without the folders that all of them lie in."""
    parts = [place.resolve().parent.parts for place in places]
    if len(set(parts)) < len(parts):
        return [str(place) for place in places]
    shared = 0
    while len({part[: shared + 1] for part in parts}) == 1 and all(
        len(part) > shared + 1 for part in parts
    ):
        shared += 1
    return [str(Path(*part[shared:])) for part in parts]

"""The comparison as tables: on the terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.box import HEAVY_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from coincide_pl.errors import printable
from coincide_pl.reporting.bootstrap import Floats
from coincide_pl.reporting.escape import latex, markdown, spreadsheet
from coincide_pl.reporting.rows import Row
from coincide_pl.reporting.stages import TIMES, Clock


@dataclass(frozen=True)
class Table:
    """A table of text whose first column names its lines.

    Attributes:
        title: words above it.
        header: names of the columns.
        lines: cells of each line, as many as there are columns.
        best: cells to mark, as (line, column).
        brief: names of the columns to show where a terminal is too narrow for all.
    """

    title: str
    header: list[str]
    lines: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)
    brief: tuple[str, ...] = ()

    def fits(self, width: int) -> bool:
        """Whether all columns are shown on a terminal of so many characters a line."""
        columns = [max(map(len, column)) for column in zip(self.header, *self.lines, strict=True)]
        return sum(columns) + 3 * len(columns) + 1 <= width

    def within(self, width: int) -> Table:
        """The table, or its brief columns alone if all do not fit so many characters a line."""
        if self.fits(width) or not self.brief:
            return self
        kept = [j for j, name in enumerate(self.header) if not j or name in self.brief]
        return Table(
            f"{self.title} (all columns: see the files)",
            [self.header[j] for j in kept],
            [[line[j] for j in kept] for line in self.lines],
            {(i, kept.index(j)) for i, j in self.best if j in kept},
        )

    def rich(self, *, dense: bool = False) -> RichTable:
        """The table for the terminal; a dense one has no lines between its columns."""
        table = RichTable(title=self.title, box=None if dense else HEAVY_HEAD, pad_edge=not dense)
        for i, name in enumerate(self.header):
            table.add_column(Text(printable(name)), justify="right" if i else "left")
        for i, line in enumerate(self.lines):
            style = ["bold" if (i, j) in self.best else "" for j in range(len(line))]
            table.add_row(*map(Text, map(printable, line), style))
        return table

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        # The names are anybody's text; the other cells are made here.
        body = [[markdown(line[0]), *line[1:]] for line in self._cells("**{}**", str)]
        lines = [list(map(markdown, self.header)), rule, *body]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)

    def latex(self) -> str:
        """The table as LaTeX's `tabular`, with the rules of booktabs."""
        rows = [list(map(latex, self.header)), *self._cells(r"\textbf{{{}}}", latex)]
        head, *body = [" & ".join(row) + r" \\" for row in rows]
        return "\n".join(
            [
                f"% {self.title}; needs \\usepackage{{booktabs}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
                "\\end{tabular}\n",
            ]
        )

    def _cells(self, mark: str, escape: Callable[[str], str]) -> list[list[str]]:
        """The cells of each line, the best of them marked."""
        return [
            [
                mark.format(escape(cell)) if (i, j) in self.best else escape(cell)
                for j, cell in enumerate(line)
            ]
            for i, line in enumerate(self.lines)
        ]


def scores(rows: Sequence[Row]) -> Table:
    """A table of scores in %: by task, mean and relative, the best of each fraction marked.

    `vs Random` is the paired difference in relative performance, with its 95 % interval.
    """
    related = rows[0].relative is not None
    header = ["run", "seeds", *rows[0].scores, "mean", *["relative", "vs Random"] * related]
    lines, values = [], []
    for row in rows:
        columns = columns_of(row)
        values.append([column.mean() for column in columns])
        near = "-"
        if row.difference and row.fraction < 1:
            middle, low, high = (100 * x for x in row.difference)
            near = f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
        cells = [row.name, str(len(row.runs)), *map(spread, columns)]
        lines.append(cells + [near] * related)
    best = set()
    for fraction in {row.fraction for row in rows if row.fraction < 1}:
        among = [i for i, row in enumerate(rows) if row.fraction == fraction]
        for j in range(len(values[0]) if len(among) > 1 else 0):
            top = max(round(values[i][j], 3) for i in among)
            best |= {(i, j + 2) for i in among if round(values[i][j], 3) == top}
    title = "Score in %, mean ± standard deviation over seeds"
    return Table(title, header, lines, best, ("seeds", "mean", "relative", "vs Random"))


def times(rows: Sequence[Row], clock: Clock = "wall") -> Table:
    """A table of seconds by stage, mean over seeds; `choosing` is all but the target's own fit.

    Stages that differ by a number alone, such as the passes over several checkpoints, are added up.

    Args:
        rows: rows of the comparison.
        clock: by which the seconds were counted.
    """
    spent_by = [row.by_stage for row in rows]
    stages = list(dict.fromkeys(stage for seconds in spent_by for stage in seconds))
    stages.sort(key=lambda stage: stage == "fit")
    header = ["run", *stages, "choosing", "total"]
    lines = []
    for row, by_stage in zip(rows, spent_by, strict=True):
        spent = [f"{by_stage[s]:.0f}" if s in by_stage else "-" for s in stages]
        unknown = "" if row.whole else "≥ "
        sums = (row.total - row.seconds.get("fit", 0.0), row.total)
        spent += (f"{unknown}{seconds:.0f}" if row.seconds else "-" for seconds in sums)
        lines.append([row.name, *spent])
    return Table(
        f"{TIMES[clock].capitalize()} in seconds, what the selection rests on counted",
        header,
        lines,
        brief=("fit", "choosing", "total"),
    )


def csv_text(rows: Sequence[Row]) -> str:
    """All figures as CSV, a line for each row: scores in [0, 1], time in seconds."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    related = ["relative"] if rows[0].relative is not None else []
    names = [*map(spreadsheet, rows[0].scores), "mean", *related]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(
        ["run", "method", "fraction", "seeds"]
        + [f"{name}{suffix}" for name in names for suffix in ("", " std")]
        + [
            "vs Random",
            "vs Random low",
            "vs Random high",
            *(f"{spreadsheet(s)} (s)" for s in stages),
        ]
        + ["total (s)", "all costs known"]
    )
    for row in rows:
        columns = columns_of(row)
        moments = [f"{x:.6g}" for c in columns for x in (c.mean(), deviation(c))]
        near = [f"{x:.6g}" for x in row.difference] if row.difference else ["", "", ""]
        spent = [f"{row.seconds[s]:.1f}" if s in row.seconds else "" for s in stages]
        start = [
            spreadsheet(row.name),
            spreadsheet(row.method),
            f"{row.fraction:.4g}",
            str(len(row.runs)),
        ]
        total = f"{row.total:.1f}" if row.seconds else ""
        out.writerow([*start, *moments, *near, *spent, total, str(row.whole).lower()])
    return text.getvalue()


def columns_of(row: Row) -> list[Floats]:
    """Scores of a row by task, their mean, and relative performance where it is known."""
    return [*row.scores.values(), row.mean, *([] if row.relative is None else [row.relative])]


def spread(values: Floats) -> str:
    """Mean and standard deviation of some scores as text in %, or the one score."""
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    return f"{100 * values.mean():.1f} ± {100 * deviation(values):.1f}"


def deviation(values: Floats) -> float:
    """Standard deviation of a sample, n - 1 in the denominator; not a number for one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")

"""What selections of easy-VQA are made of: shares of families and of answers.

The last column is the share of the selection that is spread as all data are over questions with
their answers: the sum over these of the smaller of both shares.
"""

from collections import Counter
from pathlib import Path

from jsonargparse import auto_cli

from coincide_pl.data.readers import EasyVQA
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import Selection

FAMILIES = ("colour yes/no", "shape yes/no", "which colour", "which shape")
HEADER = ["selection", *(f"{name} (%)" for name in FAMILIES)]
HEADER += [
    "yes of color (%)",
    "yes of shape (%)",
    "of each color",
    "of each shape",
    "spread as all (%)",
]


def contents(runs: list[str]) -> None:
    """Print a table, a line for all questions and one for each selection.

    Args:
        runs: directories of runs with a selection of the training questions.
    """
    records = list(EasyVQA("train"))
    asked = [(record.source, record.turns[-1].text) for record in records]
    exactly = [(record.turns[0].text, record.turns[-1].text) for record in records]
    shares = Counter(exactly)
    colors, shapes = (
        sorted({text for family, text in asked if family == name}) for name in FAMILIES[2:]
    )
    lines = []
    chosen = {name: Selection.load(Path(name) / "selection.safetensors").indices for name in runs}
    for name, rows in {"all": range(len(asked)), **chosen}.items():
        answers = Counter(asked[row] for row in rows)
        sizes = Counter(asked[row][0] for row in rows)
        line = [Path(name).name, *(f"{100 * sizes[f] / len(rows):.1f}" for f in FAMILIES)]
        line += [f"{100 * answers[f, 'yes'] / max(1, sizes[f]):.0f}" for f in FAMILIES[:2]]
        for family, names in zip(FAMILIES[2:], (colors, shapes), strict=True):
            line.append(" ".join(str(answers[family, one]) for one in names))
        own = Counter(exactly[row] for row in rows)
        same = sum(min(own[one] / len(rows), shares[one] / len(records)) for one in own)
        lines.append([*line, f"{100 * same:.0f}"])
    print(Table("Contents", HEADER, lines).markdown(), end="")


if __name__ == "__main__":
    auto_cli(contents, as_positional=False)

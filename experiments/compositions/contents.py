"""What selections are made of: samples of each skill, and of compositions with inner variety."""

from collections import Counter
from pathlib import Path

from generate import varied
from jsonargparse import auto_cli
from questions import SKILLS, compositions

from coincide_pl.data.readers import LlavaJson
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import Selection


def contents(data: str, runs: list[str], cache_dir: str = "~/.cache/coincide_pl") -> None:
    """Print a table, a line for all samples and one for each selection.

    Args:
        data: LLaVA-format file of the training set.
        runs: directories of runs with a selection of it.
        cache_dir: folder for the records in memory-mapped form.
    """
    names = LlavaJson(data, source_field="composition").records(cache_dir).sources
    chosen = {name: Selection.load(Path(name) / "selection.safetensors").indices for name in runs}
    lines = []
    for name, rows in {"all": range(len(names)), **chosen}.items():
        counts = Counter(names[row] for row in rows)
        sizes: Counter[str] = Counter()
        for number, (concept, skill) in enumerate(compositions()):
            size = counts[f"{concept}-{skill.replace(' ', '-')}"]
            sizes[skill] += size
            sizes["varied"] += size * varied(number)
        share = f"{100 * sizes['varied'] / len(rows):.0f}"
        lines.append([Path(name).name, *(str(sizes[skill]) for skill in SKILLS), share])
    header = ["selection", *SKILLS, "of much variety (%)"]
    print(Table("Contents", header, lines).markdown(), end="")


if __name__ == "__main__":
    auto_cli(contents, as_positional=False)

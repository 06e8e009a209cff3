"""How well selections cover the compositions, beside what models that learned from them scored.

Coverage is the share of a fifth with as many of each composition that a selection holds; the
others are means over compositions of log(1 + n), of n chosen samples, or of n distinct ones among
them: compositions of little variety repeat 32 originals. Nothing is trained, so a rule that chooses
can be looked at in seconds. With measured runs the table ends with how the figures follow their
relative performance.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from generate import ORIGINALS, varied
from jsonargparse import auto_cli
from questions import compositions

from coincide_pl.data.readers import LlavaJson
from coincide_pl.reporting.tables import Table, spread
from coincide_pl.selection import Selection

HEADER = ["selection", "seeds", "coverage (%)", "log(1 + n)", "log(1 + distinct)", "relative (%)"]


def proxies(data: str, runs: list[str], cache_dir: str = "~/.cache/coincide_pl") -> None:
    """Print a table, a line for each method, and the correlations over all runs.

    Args:
        data: LLaVA-format file of the training set.
        runs: directories of runs with a selection of it, named `method-fraction-seed`; those that
            have been tested have `results.json`.
        cache_dir: folder for the records in memory-mapped form.
    """
    records = LlavaJson(data, source_field="composition").records(cache_dir)
    composition, original = known(records.sources, [record.id for record in records])
    found: dict[str, list[list[float]]] = defaultdict(list)
    for name in sorted(runs):
        folder = Path(name)
        rows = Selection.load(folder / "selection.safetensors").indices
        scored = folder / "results.json"
        score = json.loads(scored.read_text())["scores"]["relative"] if scored.exists() else np.nan
        figures = covered(rows, composition, original)
        found[folder.name.rsplit("-", 1)[0]].append([*figures, score])
    lines = []
    for name, values in sorted(found.items(), key=lambda item: -np.mean(item[1], 0)[1]):
        columns = np.array(values).T
        shown = [f"{column.mean():.2f}" for column in columns[1:3]]
        relative = "-" if np.isnan(columns[3]).any() else spread(columns[3])
        lines.append([name, str(len(values)), spread(columns[0]), *shown, relative])
    print(Table("Proxies", HEADER, lines).markdown(), end="")
    every = np.concatenate([np.array(values) for values in found.values()])
    every = every[~np.isnan(every[:, 3])]
    if len(every) > 2:
        for name, column in zip(HEADER[2:5], every.T[:3], strict=True):
            r = np.corrcoef(column, every[:, 3])[0, 1]
            print(f"correlation of {name} with relative over {len(every)} runs: {r:.2f}")


def known(sources: list[str], ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The composition of each sample, and a number that samples of one original share."""
    names = [f"{concept}-{skill.replace(' ', '-')}" for concept, skill in compositions()]
    composition = np.array([names.index(source) for source in sources])
    at = np.array([int(one.rsplit("-", 1)[1]) for one in ids])
    repeats = ~np.array([varied(number) for number in range(len(names))])[composition]
    at[repeats] %= ORIGINALS
    return composition, composition * len(ids) + at


def covered(rows: np.ndarray, composition: np.ndarray, original: np.ndarray) -> list[float]:
    """Coverage, mean log(1 + n) and mean log(1 + distinct) of chosen rows."""
    sizes = np.bincount(composition)
    even, left = np.zeros(len(sizes)), len(rows)
    for done, smallest in enumerate(np.argsort(sizes, kind="stable")):
        even[smallest] = min(sizes[smallest], left // (len(sizes) - done))
        left -= int(even[smallest])
    counts = np.bincount(composition[rows], minlength=len(sizes))
    first = rows[np.unique(original[rows], return_index=True)[1]]
    distinct = np.bincount(composition[first], minlength=len(sizes))
    coverage = float(np.minimum(counts, even).sum() / even.sum())
    return [coverage, float(np.log1p(counts).mean()), float(np.log1p(distinct).mean())]


if __name__ == "__main__":
    auto_cli(proxies, as_positional=False)

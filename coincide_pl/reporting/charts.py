"""Charts as inline SVG: they follow the page's theme and width, and say in words what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

from coincide_pl.reporting.bootstrap import Floats

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 44
NUM_BINS = 30


@dataclass(frozen=True)
class Chart:
    """A picture and its words.

    Attributes:
        title: words above it.
        note: words below it, which are its alternative text too.
        svg: the picture itself.
        wide: whether it takes the whole width of the page.
    """

    title: str
    note: str
    svg: Markup
    wide: bool = False


def histogram(values: Floats, title: str, axis: str, unit: str) -> Chart:
    """A histogram of some numbers.

    Args:
        values: numbers to count, [n], at least one.
        title: title of the chart.
        axis: name and unit of the values.
        unit: plural noun of what is counted.
    """
    values = np.asarray(values, np.float64)
    low, high = float(values.min()), float(values.max())
    whole = bool((values == np.round(values)).all()) and high - low < NUM_BINS
    if whole:
        edges = np.arange(low, high + 2) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
    counts = np.histogram(values, edges)[0]
    x = _Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = _Scale(0, max(int(counts.max()), 1), HEIGHT - BOTTOM, TOP)
    parts = []
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        span = f"{_number(start)} to {_number(end)}" if not whole else _number(start + 0.5)
        parts.append(
            f'<rect class="bar" x="{x(start) + 0.5:.1f}" y="{y(count):.1f}" '
            f'width="{max(x(end) - x(start) - 1, 0.5):.1f}" '
            f'height="{HEIGHT - BOTTOM - y(count):.1f}"><title>{span}: {count}</title></rect>'
        )
    quartiles = [_number(v) for v in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
    note = (
        f"{len(values):,} {unit}; from {quartiles[0]} to {quartiles[4]}, median {quartiles[2]}, "
        f"half between {quartiles[1]} and {quartiles[3]}"
    )
    frame = _axes(_ticks(edges[0], edges[-1]), _ticks(0, int(counts.max())), x, y, axis, unit)
    return Chart(title, note, _svg("".join(parts) + frame, f"{title}: {note}"))


def plane(
    points: Floats,
    sizes: Sequence[float],
    shades: Sequence[float] | None,
    title: str,
    name: str,
) -> Chart:
    """Clusters as circles, each a link to its entry in the browser.

    Args:
        points: places of the clusters, float [K, 2].
        sizes: areas of the circles, [K].
        shades: figures that their shades stand for, light to dark, [K]; None for one color.
        title: title of the chart.
        name: name of these figures.
    """
    width, height, edge = 860, 480, 16
    x = _Scale(*_span(points[:, 0]), edge, width - edge)
    y = _Scale(*_span(points[:, 1]), height - edge, edge)
    radius = np.sqrt(np.asarray(sizes, np.float64) / max(max(sizes), 1))
    radius = 1 + min(14.0, 200 / len(points) ** 0.5) * radius
    low, high = _span(np.asarray(shades)) if shades is not None else (0.0, 1.0)
    parts = []
    for i in np.argsort(-radius, kind="stable").tolist():
        share = 0.5 if shades is None else (shades[i] - low) / (high - low)
        words = f"cluster {i}: {sizes[i]} selected"
        words += "" if shades is None else f", {name} {_number(shades[i])}"
        parts.append(
            f'<circle data-cluster="{i}" cx="{x(points[i, 0]):.1f}" cy="{y(points[i, 1]):.1f}" '
            f'r="{radius[i]:.1f}" style="--s:{share:.2f}"><title>{escape(words)}</title></circle>'
        )
    note = "Centroids on their first two principal components, without units; area by budget"
    if shades is not None:
        note += f", color by {name}, from {_number(low)} (pale) to {_number(high)} (strong)"
    note += ". Choose a circle to open its cluster; the browser below lists the same clusters."
    svg = _svg("".join(parts), f"{title}. {note}", width, height, "map")
    return Chart(title, note, svg, wide=True)


def _svg(
    body: str, label: str, width: int = WIDTH, height: int = HEIGHT, kind: str = "chart"
) -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{body}</svg>'
    )


def _axes(
    across: list[float], up: list[float], x: _Scale, y: _Scale, below: str, beside: str
) -> str:
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>']
    for value in across:
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{_number(value)}</text>"
        )
    for value in up:
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    height = (TOP + bottom) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(below)}</text>'
        f'<text transform="translate(12 {height}) rotate(-90)" text-anchor="middle">'
        f"{escape(beside)}</text>"
    )
    return "".join(parts)


class _Scale:
    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.slope = (end - start) / ((high - low) or 1)

    def __call__(self, value: float) -> float:
        return float(self.start + (value - self.low) * self.slope)


def _span(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers from low to high."""
    rough = (high - low) / 5 or 1
    size = 10.0 ** np.floor(np.log10(rough))
    step = float(size * min((m for m in (1, 2, 5, 10) if m * size >= rough), default=10))
    first = np.ceil(low / step)
    return [float(step * n) for n in np.arange(first, np.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"

"""Features like a reference model's, on disk, made in bounded memory.

Components of sizes that fall like those of a mix of data sets, some near each other; samples spread
around them in a few shared directions and a little in all; each layer's visual and text half of
norm 1, all divided by sqrt(2 layers). Nothing of it is fitted to a method.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

LAYERS, RANK, BLOCK = 5, 64, 4096


def write_features(
    path: Path, count: int, width: int, components: int, seed: int = 0, spread: float = 0.5
) -> None:
    """Writes float16 [count, width] as an `.npy` file.

    Args:
        path: the file.
        count: rows.
        width: columns: 5 layers of a visual and a text half.
        components: of the mixture.
        seed: of everything drawn.
        spread: standard deviation of samples around their component, in the shared directions;
            components lie around each other with 1.
    """
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shared = torch.randn(RANK, width) / RANK**0.5
    places = torch.randn(components, RANK)
    sizes = 1 / np.arange(1, components + 1) ** 0.7
    owner = torch.from_numpy(random.choice(components, count, p=sizes / sizes.sum()))
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "<f2", "fortran_order": False, "shape": (count, width)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in track(
            range(0, count, BLOCK), f"{count} rows", transient=True, disable=not sys.stderr.isatty()
        ):
            own = places[owner[start : start + BLOCK]]
            rows = (own + spread * torch.randn(own.shape)) @ shared
            rows.add_(torch.randn(rows.shape), alpha=0.5).add_(0.7)
            halves = torch.nn.functional.normalize(rows.view(len(rows), 2 * LAYERS, -1), dim=2)
            halves.div_((2 * LAYERS) ** 0.5)
            file.write(halves.half().numpy().tobytes())

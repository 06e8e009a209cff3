"""What a fit starts from, reads and leaves, noted in `inputs.json` of its run's directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from coincide_pl.files import reading, write_text

INPUTS = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """What a fit starts from, reads and leaves.

    Attributes:
        model: fingerprint of the checkpoint that it starts from, if known.
        signals: fingerprints of the stores that its selector and its model read, by directory.
        selection: fingerprint of the selection that it is trained on, if there is one.
        trained: fingerprint of the checkpoint that it has left; None until its end, `unknown` for
            a fit that left adapters alone, or is from before this was noted.
    """

    model: str | None
    signals: dict[str, str] = field(default_factory=dict)
    selection: str | None = None
    trained: str | None = None

    def save(self, directory: Path) -> None:
        """Write them in a run's directory."""
        write_text(directory / INPUTS, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, directory: Path) -> Inputs | None:
        """Read what a run's fit has noted; None where it has not.

        Raises:
            CoincideError: the file is damaged.
        """
        path = directory / INPUTS
        if not path.is_file():
            return None
        with reading(path, "run `coincide fit` again"):
            content = json.loads(path.read_text())
            signals = {str(store): str(digest) for store, digest in content["signals"].items()}
            chosen, trained = content.get("selection"), content.get("trained", "unknown")
            return cls(content["model"], signals, chosen, trained)

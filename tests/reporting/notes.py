"""What stages leave in the directory of a run."""

import json


def inputs_of(folder, signals, start="m", **trained):
    """Writes `inputs.json`."""
    (folder / "inputs.json").write_text(json.dumps({"model": start, "signals": signals, **trained}))


def stages_of(folder, stages):
    """Writes `stages.jsonl`: (stage, seconds), or (stage, seconds, whether it came to its end)."""
    folder.mkdir(exist_ok=True)
    lines = [
        {"stage": stage, "seconds": seconds, "finished": not rest or rest[0]}
        for stage, seconds, *rest in stages
    ]
    (folder / "stages.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

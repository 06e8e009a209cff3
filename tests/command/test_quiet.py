"""Lost if this fails: each line on the terminal is there once, in one form."""

import subprocess
import sys


def test_what_lightning_logs_is_there_once(tmp_path):
    words = [sys.executable, "-m", "coincide_pl", "select", "--data=InstructionData"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    seeds = [line for line in done.stderr.splitlines() if "Seed set to" in line]
    assert seeds == ["Seed set to 0"], done.stderr

"""Stages one after the other in one process that torchrun has started.

Imports are most of a tiny stage's time. A list of the stages' words is read from a JSON file.
"""

import json
import os
import sys
from pathlib import Path

from coincide_pl.command.main import main

stages, ports = json.loads(Path(sys.argv[1]).read_text())
for words, port in zip(stages, ports, strict=True):
    if port is not None:  # torchrun's own place serves one meeting
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": str(port)}
    sys.argv = ["coincide", *words]
    main(words)

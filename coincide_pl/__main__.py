"""The command's beginning: libraries take seconds to load, and may be interrupted, too."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Loads the command and runs it."""

    def end(signum: int, frame: FrameType | None) -> None:
        sys.stderr.write("interrupted: nothing had begun\n")
        sys.stderr.flush()
        os._exit(128 + signum)  # an exception would meet handlers of imports under way

    before = {one: signal.signal(one, end) for one in (signal.SIGTERM, signal.SIGINT)}
    from coincide_pl.command.main import main

    for one, handler in before.items():
        signal.signal(one, handler)
    main()


if __name__ == "__main__":
    main()

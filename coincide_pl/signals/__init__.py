"""The on-disk store of per-sample signals, and the callback that fills it."""

from coincide_pl.signals.difficulty import WriteDifficulty
from coincide_pl.signals.store import Manifest, Signals, SignalsStore, SignalsWriter
from coincide_pl.signals.writer import WriteSignals

__all__ = [
    "Manifest",
    "Signals",
    "SignalsStore",
    "SignalsWriter",
    "WriteDifficulty",
    "WriteSignals",
]

"""The on-disk store of per-sample signals, and the callback that fills it."""

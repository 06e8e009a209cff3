"""What the server process has imported before commands are forked from it.

Also what the libraries import where they are first used: each command would do it again.
"""

import gc
from importlib import import_module

from PIL import Image

MODULES = (
    *("coincide_pl.command.cli", "coincide_pl.models.tiny", "coincide_pl.reporting.compare"),
    *("coincide_pl.reporting.report", "matplotlib.backends.backend_agg", "pyarrow.pandas_compat"),
    *(
        "pandas",
        "transformers.models.llava.modeling_llava",
        "transformers.models.clip.modeling_clip",
    ),
    *("transformers.models.llama.modeling_llama", "attrs"),
    *("fsspec.implementations.chained", "rich._emoji_codes", "pytest"),
)
for name in MODULES:
    import_module(name)
Image.init()
gc.freeze()  # a command's garbage collector would touch, and so copy, all of it

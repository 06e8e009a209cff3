"""Signals as a config names them: by a short name, a class name, or an import path."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

# Their classes are known by their short names.
import coincide_pl.signals.activations
import coincide_pl.signals.answer_tokens
import coincide_pl.signals.clip
import coincide_pl.signals.consistency
import coincide_pl.signals.difficulty
import coincide_pl.signals.embeddings
import coincide_pl.signals.gradients
import coincide_pl.signals.image_tokens
import coincide_pl.signals.likelihood
import coincide_pl.signals.rewritten
import coincide_pl.signals.spectra
import coincide_pl.signals.vision  # noqa: F401
from coincide_pl.errors import SignalsError
from coincide_pl.signals.signal import Signal, check_class


def chosen(given: Sequence[str | Signal], layers: Sequence[int] = ()) -> list[Signal]:
    """The signals that a config names.

    Args:
        given: names, or signals that were built with arguments of their own.
        layers: decoder layers of those that are given by a name and take layers.

    Raises:
        SignalsError: none, an unknown one, one name twice, or layers that are needed and not given.
    """
    signals = [one if isinstance(one, Signal) else _named(one, list(layers)) for one in given]
    names = [signal.name for signal in signals]
    if not names or len(set(names)) != len(names):
        raise SignalsError(
            f"signals: {', '.join(names) or 'none'} must have different names, and be at least one "
            "(two of one class: init_args: {name: …})"
        )
    for name in names:
        if not name.isidentifier():
            raise SignalsError(f"signals: the name {name!r} must be letters, digits and _")
    return signals


def _named(name: str, layers: list[int]) -> Signal:
    """A signal with its default arguments, and the layers where it takes some."""
    kind = _class(name)
    parameters = inspect.signature(kind).parameters
    arguments = {"layers": layers} if layers and "layers" in parameters else {}
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and argument not in arguments:
            if argument == "layers":
                raise SignalsError(
                    f"layers: {name} needs decoder layers, such as [3, 7, 11, 15, 19]"
                )
            raise SignalsError(
                f"signals: {name} needs {argument}: give it as "
                f"{{class_path: {name}, init_args: {{{argument}: …}}}}"
            )
    return kind(**arguments)


def _class(name: str) -> type[Signal]:
    known: dict[str, type[Signal]] = {}
    kinds = Signal.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
        if not inspect.isabstract(kind) and hasattr(kind, "name"):
            known |= {kind.name: kind, kind.__name__: kind}
    if name in known:
        return known[name]
    module, _, last = name.rpartition(".")
    if not module:
        near = get_close_matches(name, known, 3)
        shown = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise SignalsError(f"signals: no signal is called {name!r}; {shown}")
    try:
        found = getattr(import_module(module), last)
    except (ImportError, AttributeError) as error:
        raise SignalsError(f"signals: {name} is not there ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Signal)):
        raise SignalsError(f"signals: {name} is no subclass of coincide_pl.signals.Signal")
    check_class(found)
    return found

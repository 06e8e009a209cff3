"""What older versions called otherwise: verbs, options and values, each with its name of now.

An old name is looked up only where nothing is called so, so a class of the user's own may use it.
"""

from __future__ import annotations

VERBS = {"create": "create-tiny-llava", "create-clip": "create-tiny-clip"}
"""Verbs."""
OPTIONS = {
    "attention": "attn_implementation",
    "density_with_self": "include_self",
    "eval_token_budget": "eval_max_tokens",
    "floor": "min_lr_ratio",
    "memory": "memory_gib",
    "part": "keep",
    "token_budget": "max_tokens",
    "unusable": "on_error",
    "warmup": "warmup_ratio",
}
"""Last parts of options' names."""
MOVED = {
    "tanh": "is an argument of the signal now: "
    "signals: [{class_path: Activations, init_args: {tanh: false}}]",
}
"""Options that have become something else."""
VALUES = {"perplexity": "nll", "aum": "margin", "leave_out": "skip"}
"""Values, among them the names of signals."""


def verb(word: str) -> str | None:
    """The line for an old verb; None where the word never was one."""
    return f"{word} is called {VERBS[word]} now" if word in VERBS else None


def option(name: str) -> str | None:
    """The line for an option's old name; None where it never was one.

    Args:
        name: whole, such as `data.token_budget`.
    """
    before, dot, last = name.rpartition(".")
    if last in MOVED:
        return f"{name} {MOVED[last]}"
    if last in OPTIONS:
        return f"{name} is called {before}{dot}{OPTIONS[last]} now"
    return None


def value(option: str, old: str) -> str | None:
    """The line for an option's old value; None where it never was one.

    Args:
        option: its whole name.
        old: what it was set to.
    """
    return f"{option}: {old} is called {VALUES[old]} now" if old in VALUES else None

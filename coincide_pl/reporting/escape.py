"""Names of tasks, methods and paths as plain text, wherever they are written: never as markup."""

from __future__ import annotations

import re
import sys

from rich.console import Console

from coincide_pl.errors import printable

LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "≥": r"$\ge$",
}


def terminal() -> Console:
    """A console that shows text as it is, without markup and emoji, 140 wide in a pipe."""
    width = None if sys.stdout.isatty() else 140
    return Console(width=width, markup=False, emoji=False)


def markdown(text: str) -> str:
    """Text as it stands in a cell of a Markdown table."""
    text = re.sub(r"([\\`*\[\]|~]|\b_|_\b)", r"\\\1", printable(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex(text: str) -> str:
    """Text as it stands in a cell of a LaTeX table."""
    text = "".join(LATEX.get(sign, sign) for sign in printable(text))
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text  # else options of \\


def spreadsheet(text: str) -> str:
    """Text as a cell that a spreadsheet does not take for a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def label(text: str) -> str:
    """Text as matplotlib draws it: no formula, and not hidden from a legend."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text

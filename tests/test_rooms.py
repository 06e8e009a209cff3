"""Lost if these fail: imports in one direction, so that a room can be read and replaced alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "coincide_pl"
FLOORS = {"methods": ("steps", "arrays"), "steps": ("arrays",), "arrays": ()}
"""What the folders of `selection` may import of each other."""


def rooms() -> list[str]:
    """The rooms in the order of the table in coincide_pl/README.md."""
    readme = (PACKAGE / "README.md").read_text()
    table = re.search(r"```text\nroom .*?\n(.*?)```", readme, re.DOTALL)
    assert table is not None
    return [line.split()[0] for line in table[1].splitlines()]


def imports(source: str) -> Iterator[str]:
    """Modules of this package that a source imports anywhere, also where only types are checked."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith("coincide_pl"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coincide_pl"):
            if node.module == "coincide_pl":
                yield from (f"coincide_pl.{one.name}" for one in node.names)
            else:
                yield str(node.module)


def against(path: Path, source: str, order: list[str]) -> list[str]:
    """Imports that a file may not have."""
    own = path.relative_to(PACKAGE).with_suffix("").parts
    if own[0] in ("__init__", "__main__"):
        return []  # the package's front: it offers what is in the rooms
    found = []
    for module in imports(source):
        other = module.split(".")[1:]
        if not other:
            continue  # the package itself, for its version or its folder
        upward = order.index(other[0]) > order.index(own[0])
        inside = own[0] == other[0] == "selection" and own[1] in FLOORS and len(other) > 1
        floors = inside and other[1] in FLOORS and other[1] != own[1]
        if upward or (floors and other[1] not in FLOORS[own[1]]):
            found.append(f"{path.relative_to(PACKAGE.parent)} imports {module}")
    return found


def test_every_room_is_in_the_table():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert folders | files == set(rooms())


def test_no_import_runs_against_the_order():
    order = rooms()
    found = [
        line for path in PACKAGE.rglob("*.py") for line in against(path, path.read_text(), order)
    ]
    assert not found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("data/records.py", "from coincide_pl.models import TargetModule"),
        ("signals/store.py", "def read():\n    import coincide_pl.selection"),
        ("models/loading.py", "if TYPE_CHECKING:\n    from coincide_pl.datamodule import Data"),
        ("files.py", "from coincide_pl import reporting"),
        ("selection/arrays/rows.py", "from coincide_pl.selection.steps import budgets"),
    ],
)
def test_an_import_against_the_order_is_found(file, source):
    assert against(PACKAGE / file, source, rooms())


def test_an_import_with_the_order_is_none():
    assert not against(
        PACKAGE / "reporting/tables.py", "from coincide_pl.data import records", rooms()
    )

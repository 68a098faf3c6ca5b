"""The twin's rooms: each imports only those below it, so each can be read alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from atemporal import twin
from tests.unit.test_layout import imports

TWIN = Path(twin.__file__).parent
BELOW = {
    "jsonfile": (),
    "processes": (),
    "catalogue": (),
    "state": ("jsonfile",),
    "faults": ("jsonfile", "state"),
    "containers": ("jsonfile", "processes"),
    "machine": ("jsonfile", "processes", "faults", "containers"),
    "host": (
        "jsonfile",
        "processes",
        "catalogue",
        "state",
        "faults",
        "containers",
    ),
    "ec2": ("catalogue", "state", "faults", "host"),
    "server": ("jsonfile", "state", "faults", "containers", "host", "ec2"),
    "__main__": ("containers", "host", "ec2", "server"),
}


def rooms_of(name: str) -> set[str]:
    """The rooms of the twin that a room imports, itself left out."""
    found = set()
    files = [TWIN / f"{name}.py"] if (TWIN / f"{name}.py").exists() else (TWIN / name).glob("*.py")
    for path in files:
        module = ".".join(("atemporal", "twin", *path.relative_to(TWIN).with_suffix("").parts))
        for imported in imports(module, False, ast.parse(path.read_text())):
            if imported.startswith("atemporal.twin."):
                found.add(imported.split(".")[2])
    return found - {name}


def test_every_room_is_known() -> None:
    modules = {path.stem for path in TWIN.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in TWIN.glob("*/__init__.py")}

    assert modules | packages == set(BELOW)


def test_no_room_is_below_itself() -> None:
    for position, below in enumerate(BELOW.values()):
        assert set(below) <= set(list(BELOW)[:position])


@pytest.mark.parametrize("name", BELOW)
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    assert rooms_of(name) <= set(BELOW[name])

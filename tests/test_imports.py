"""The way through the program: imports point from the commands down to the data, never up and never in a circle."""

from __future__ import annotations

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

# From the top to the ground. A module may import rooms below its own, and modules of its own room.
ROOMS = (
    "sourcesep.cli",
    "sourcesep.export",
    "sourcesep.evaluate",
    "sourcesep.train",
    "sourcesep.separate",
    "sourcesep",
    "sourcesep.models",
    "data_gen",
)
INDEPENDENT = {("sourcesep.export", "sourcesep.train"), ("sourcesep.evaluate", "sourcesep.train")}
UNIX_ONLY = ("fcntl", "grp", "posix", "pwd", "pty", "resource", "termios")


def modules() -> dict[str, pathlib.Path]:
    """Every module of the two packages, by name."""
    found = {}
    for package in ("data_gen", "sourcesep"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """The modules of ours that a module imports, also inside functions; not those imported for type checkers only."""
    tree = ast.parse(MODULES[name].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else node.module for one in inner}
    return (found & MODULES.keys()) - {name}


def room_of(name: str) -> str:
    """The room of a module; `python -m ...` programs are commands."""
    if name.endswith("__main__"):
        return "sourcesep.cli"
    return max((room for room in ROOMS if name == room or name.startswith(room + ".")), key=len)


def test_no_module_imports_a_room_above_its_own():
    upward = []
    for name in MODULES:
        if name == "sourcesep":  # offers Separator to those who import the package
            continue
        for imported in imports_of(name) - {"sourcesep"}:
            rooms = room_of(name), room_of(imported)
            if ROOMS.index(rooms[1]) < ROOMS.index(rooms[0]) or rooms in INDEPENDENT:
                upward.append(f"{name} imports {imported}")
    assert not upward


def test_no_imports_form_a_circle():
    graph = {name: imports_of(name) - {"data_gen", "sourcesep"} for name in MODULES if name != "sourcesep"}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert len(order) == len(graph)


@pytest.mark.parametrize("hidden", ["tensorflow keras", " ".join(UNIX_ONLY)], ids=["TensorFlow", "Unix"])
def test_modules_can_be_imported_without(hidden):
    """data_gen, the Config and the source need no TensorFlow; nothing needs modules that only Unix has."""
    needed = [name for name in MODULES if not name.endswith("__main__") and not name.startswith("sourcesep.pretrained")]
    if "tensorflow" in hidden:
        needed = [name for name in needed if name.startswith("data_gen")]
        needed += ["sourcesep", "sourcesep.config", "sourcesep.loss_terms", "sourcesep.models", "sourcesep.sources"]
        hide = f"for name in {hidden.split()!r}: sys.modules[name] = None"
    else:
        # Python's own modules and the packages may use them, so only imports from our files are refused.
        hide = f"""
import builtins, signal
original = builtins.__import__
def checked(name, globals=None, *rest, **more):
    package = (globals or {{}}).get("__name__", "").partition(".")[0]
    if name in {hidden.split()!r} and package in ("data_gen", "sourcesep"):
        raise ImportError(name)
    return original(name, globals, *rest, **more)
builtins.__import__ = checked
for name in ("SIGALRM", "SIGKILL", "SIGHUP", "setitimer"): delattr(signal, name)
"""
    script = f"import sys\n{hide}\nimport importlib\nfor name in {needed!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr

"""What is compiled is thrown away when anything has changed that is in its code."""

from __future__ import annotations

import ast
from pathlib import Path

from foundation.compiling import SOURCES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("foundation", "trace_gen", "converters", "orchestrator", "analytical", "external")


def imported(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of all that a file imports from modules by their names, types for checking only apart."""
    tree = ast.parse(path.read_text())
    return [
        (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]


def known() -> set[Path]:
    return {path for pattern in SOURCES for path in ROOT.glob(pattern)}


def compiling() -> list[Path]:
    """Return the modules that have compiled functions."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    makers = {("foundation.compiling", "compiled"), ("foundation.compiling", "inner")}
    return [path for path in files if makers & set(imported(path))]


def test_every_module_with_compiled_functions_is_among_the_sources() -> None:
    found = compiling()
    assert len(found) >= 9
    assert set(found) <= known()


def test_so_is_what_they_take_from_elsewhere() -> None:
    """Functions that they call and constants that they read; classes are for annotations, or hold numbers only."""
    for path in compiling():
        for module, name in imported(path):
            if module.split(".")[0] not in PACKAGES or (name[0].isupper() and not name.isupper()):
                continue
            place = ROOT / (module.replace(".", "/") + ".py")
            inside = ROOT / module.replace(".", "/") / f"{name}.py"
            assert {place, inside} & known(), f"{path.name} takes {name} from {module}"

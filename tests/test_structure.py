"""The house keeps its shape: imports point one way, modules stay small, and nothing heavy loads early."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# package -> the packages of ours that it may import (design: dependencies point one way).
MAY_IMPORT = {
    "foundation": set(),
    "trace_gen": {"foundation"},
    "astra_files": {"foundation"},
    "converters": {"foundation", "trace_gen"},
    "analytical": {"foundation", "astra_files", "converters"},
    "external": {"foundation", "astra_files", "converters", "analytical"},
    "orchestrator": {"foundation", "astra_files", "trace_gen", "converters", "analytical", "external"},
    "trace_test": {"foundation", "astra_files", "trace_gen", "converters", "analytical"},
    "profiler": {"foundation", "trace_gen"},
}

# A package's rooms in order: a room may import those before it, and only modules beside the rooms import any.
ROOMS = {"analytical": ("machine", "collectives", "events", "chains", "actors", "ordered", "output")}


def modules() -> Iterator[tuple[str, Path]]:
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.name.endswith("_pb2.py"):
                yield package, path


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_point_one_way(package: str, path: Path) -> None:
    ours = imported_packages(path) & set(MAY_IMPORT) - {package}
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_point_one_way(package: str) -> None:
    """Every room is named, opens with its door, and imports only what comes before it."""
    rooms = ROOMS[package]
    assert {path.parent.name for path in (ROOT / package).glob("*/*.py")} == set(rooms)
    for at, room in enumerate(rooms):
        for path in (ROOT / package / room).glob("*.py"):
            imported = {name.split(".")[1] for name in imported_modules(path) if name.startswith(f"{package}.")}
            assert imported <= {*rooms[: at + 1]}, f"{path} imports {sorted(imported)}"


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_every_module_says_its_job_and_does_one_thing(package: str, path: Path) -> None:
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "a module opens with its job"
    assert source.count("\n") <= 500, "look for the second thing in it"


def named_modules(path: Path) -> set[str]:
    """Return the modules that registries are told of by name, as far as they are written out."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    registered = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "register_lazy"]
    return {str(node.args[1].value) for node in registered if isinstance(node.args[1], ast.Constant)}


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_nothing_is_imported_by_name_around_the_rule(package: str, path: Path) -> None:
    """Only the registry imports by name, and it is told of modules that its owner might import."""
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    if path != ROOT / "foundation" / "registry.py":
        assert not names & {"import_module", "__import__"}
    if path.parent != ROOT / "foundation":
        assert "importlib" not in imported_packages(path)
    assert {name.split(".")[0] for name in named_modules(path)} <= MAY_IMPORT[package] | {package}


def test_registries_name_modules_of_other_packages() -> None:
    """The rule above is not empty: the orchestrator's backends are named."""
    assert "analytical.settings" in named_modules(ROOT / "orchestrator" / "backends" / "__init__.py")

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
    "converters": {"foundation", "trace_gen"},
    "analytical": {"foundation", "converters"},
    "external": {"foundation", "converters", "analytical"},
    "orchestrator": {"foundation", "trace_gen", "converters", "analytical", "external"},
    "trace_test": {"foundation", "trace_gen", "converters", "analytical"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.name.endswith("_pb2.py"):
                yield package, path


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_point_one_way(package: str, path: Path) -> None:
    ours = imported_packages(path) & set(MAY_IMPORT) - {package}
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_every_module_says_its_job_and_does_one_thing(package: str, path: Path) -> None:
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "a module opens with its job"
    assert source.count("\n") <= 500, "look for the second thing in it"

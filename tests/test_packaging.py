"""What is installed runs without the checkout; what cannot run says which Python can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from foundation.commands import DEPENDENCIES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=known, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy and installed into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for path in sorted(ROOT.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name not in ("tests", "build", "dist", "output"):
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif path.name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(path, source)
    built = python("-c", f"import setuptools.build_meta as b; print(b.build_wheel({str(target)!r}))", cwd=source)
    assert built.returncode == 0, built.stderr
    wheel = target / built.stdout.split()[-1]
    flags = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target")
    made = python("-m", "pip", "install", *flags, target / "site", wheel, cwd=target)
    assert made.returncode == 0, made.stderr
    return target / "site"


def test_the_wheel_holds_everything_that_ships(installed: Path) -> None:
    shipped = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.*") if path.is_file())
    assert len(shipped) > 60
    assert sorted(path.relative_to(installed) for path in (installed / "configs").rglob("*.*")) == shipped
    for name in ("tests", "benchmarks", "examples", "docs"):
        assert not (installed / name).exists(), "only what runs is installed"
    kernels = sorted(path.name for path in (ROOT / "profiler" / "kernels").glob("*.py"))
    assert (
        len(kernels) > 4 and sorted(path.name for path in (installed / "profiler" / "kernels").glob("*.py")) == kernels
    )
    sources = [path for path in ROOT.glob("*/**/*.sh") if path.parts[len(ROOT.parts)] == "external"]
    assert sources and all((installed / path.relative_to(ROOT)).exists() for path in sources)


def test_the_installed_command_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    script = installed / "bin" / "orrery"
    flags = ("--model_name", "openai-community/gpt2", "--req_num", "2", "--hardware", "H100", "--output", "out.csv")
    done = python(script, *flags, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text().count("\n") == 3
    where = python("-c", "import orchestrator.cli as c; print(c.__file__)", cwd=tmp_path, PYTHONPATH=str(installed))
    assert where.stdout.startswith(str(installed)), "it is the installed one that ran"


def test_without_its_dependencies_one_line_says_which_python_to_use(tmp_path: Path) -> None:
    bare = python("-S", ROOT / "main.py", "--req_num", "1", cwd=tmp_path)  # -S: without what pip installed
    assert bare.returncode == 2 and bare.stdout == ""
    assert bare.stderr.startswith(f"error: {sys.executable} has no ") and bare.stderr.count("\n") == 1
    assert "which Orrery needs" in bare.stderr and ".venv/bin/python" in bare.stderr


def test_a_module_of_ours_that_is_missing_is_a_defect_and_shown_as_one(tmp_path: Path) -> None:
    script = "from foundation.commands import run_command\nimport importlib\n"
    script += "run_command(lambda: importlib.import_module('orchestrator.nowhere'))"
    done = python("-c", script, cwd=ROOT)
    assert "Traceback" in done.stderr and "orchestrator.nowhere" in done.stderr


def test_every_dependency_is_one_that_may_be_missing() -> None:
    modules = {"numpy": "numpy", "protobuf": "google", "pyyaml": "yaml", "rich": "rich"}
    assert {modules[name.partition(">")[0]] for name in PROJECT["dependencies"]} == DEPENDENCIES


def test_an_old_python_can_read_the_line_that_refuses_it() -> None:
    compile((ROOT / "main.py").read_text(), "main.py", "exec", dont_inherit=True)
    source = (ROOT / "main.py").read_text()
    before = source.index("from orchestrator")
    assert source.index("sys.version_info < (3, 11)") < before, "before anything that it could not import"
    script = source.replace("sys.version_info", "(3, 8)")
    done = python("-c", script, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: Orrery needs Python 3.11 or newer")

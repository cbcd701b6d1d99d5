"""Files that add choices: loaded once, refused with their line, known to flags, help and Python from then on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation import plugins
from foundation.commands import run_command
from foundation.errors import UserError
from foundation.plugins import load_plugin
from foundation.settings.catalogue import catalogue
from orchestrator.commands.run import simulate
from orchestrator.settings.specification import RunSpec
from trace_gen.perf_models import perf_models

PLUGIN = """
from dataclasses import dataclass
from foundation.settings import setting
from trace_gen.perf_models import perf_models

@perf_models.register("{name}")
@dataclass(frozen=True)
class Settings:
    \"\"\"Nothing much.\"\"\"

    {name}_ns: int = setting(7, "whatever it is", unit="ns", least=1)
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test loads."""
    len(perf_models)  # what ships is known before
    monkeypatch.setattr(perf_models, "_choices", dict(perf_models._choices))
    monkeypatch.setattr(plugins, "_LOADED", {})
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]


def write(path: Path, name: str) -> Path:
    path.write_text(PLUGIN.format(name=name))
    return path


def test_a_file_that_failed_fails_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for content, said in (("1 / 0", "ZeroDivisionError"), ("1 +", "not valid Python"), ("raise SystemExit", "fails")):
        path.write_text(content)
        for _ in range(2):
            with pytest.raises(UserError, match=said):
                load_plugin(path)
    assert load_plugin(write(path, "mended")) and "mended" in perf_models
    assert len([name for name in sys.modules if name.startswith("plugin_")]) == 1


def test_a_file_is_loaded_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.py", "mine")
    (tmp_path / "link.py").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert load_plugin(path) and not load_plugin(path)
    assert not load_plugin(Path("mine.py")) and not load_plugin(tmp_path / "link.py")
    assert "mine" in perf_models


def test_every_file_of_a_folder_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.py").write_text(f"import sys\nsys.loaded = getattr(sys, 'loaded', '') + {name!r}\n")
    (tmp_path / "c.txt").write_text("no Python")
    assert load_plugin(tmp_path)
    assert vars(sys).pop("loaded") == "ab"
    write(tmp_path / "d.py", "later")
    assert load_plugin(tmp_path), "what has come since"
    assert "later" in perf_models and not load_plugin(tmp_path)


def test_what_it_adds_is_known_from_then_on(tmp_path: Path) -> None:
    before = catalogue(RunSpec)
    assert catalogue(RunSpec) is before and "added_ns" not in before.entries
    load_plugin(write(tmp_path / "mine.py", "added"))
    assert catalogue(RunSpec).readers("added_ns") == "--perf_model added"


def test_python_names_it_as_flags_do(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "named")
    spec = RunSpec.of(plugin=str(path), perf_model="named", named_ns=9)
    assert vars(spec.engine.perf_model) == {"named_ns": 9} and spec.plugin == path


def test_a_run_file_and_flags_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags that only the plugin of the file knows are read; one that even it does not know is refused."""
    path = write(tmp_path / "mine.py", "filed")
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"plugin": str(path), "perf_model": "filed"}))
    assert run_command(lambda: simulate(["--settings", str(run), "--filed_ns", "0"])) == 2
    assert capsys.readouterr().err == "error: --filed_ns: '0' is not a whole number of at least 1\n"
    assert run_command(lambda: simulate(["--settings", str(run), "--fild_ns", "3"])) == 2
    near = "--filed_ns, --compiled_engines, --prefill_chunk"
    assert capsys.readouterr().err == f"error: --fild_ns: unknown flag; did you mean {near}?\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = 2 +\n", "mine.py, line 2: not valid Python: invalid syntax"),
        ("\n\nimport no_such_module\n", "mine.py, line 3: the plugin fails: ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\n\nf()\n", "mine.py, line 2: the plugin fails: ZeroDivisionError: division by"),
        (PLUGIN.format(name="roofline"), "the plugin fails: performance model 'roofline' is registered twice"),
        ("raise SystemExit('over')\n", "mine.py, line 1: the plugin fails: SystemExit: over"),
        ("x = '\0'\n", "null bytes"),
    ],
)
def test_one_that_fails_is_one_line_with_its_place(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert run_command(lambda: simulate(["--plugin", str(tmp_path / "mine.py"), "--req_num", "1"])) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_an_error_of_ours_goes_through_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from foundation.errors import UserError\nraise UserError('no licence')\n")
    with pytest.raises(UserError, match=r"^no licence$"):
        load_plugin(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.py", "nowhere.py: the plugin does not exist; check the path"),
        ("empty", "empty: the folder holds no .py files; name a plugin, or a folder of them"),
        ("/dev/null", "/dev/null"),
        ("", "--plugin: nothing is given: it takes a path"),
        ("x" * 5000, "is not a path that can be used"),
        ("a\0b", "is not a path that can be used"),
        ("x" * 300, "name too long"),
    ],
)
def test_what_is_no_plugin(
    tmp_path: Path, value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: simulate([f"--plugin={value}", "--req_num", "1"])) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and len(err) < 500


def test_settings_that_are_declared_wrongly_are_the_plugins_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "mine.py", "mine")
    path.write_text(path.read_text().replace("@dataclass(frozen=True)", "@dataclass"))
    with pytest.raises(SystemExit):
        sys.exit(run_command(lambda: simulate(["--plugin", str(path)])))
    why = "Settings holds settings and is no @dataclass(frozen=True)"
    assert capsys.readouterr().err == f"error: {path}: the plugin declares settings wrongly: {why}\n"

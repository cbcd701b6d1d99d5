"""The mutation runner: which changes it makes, which tests it picks, and what it says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.mutation.changes import Change, statements
from benchmarks.mutation.ledger import Ledger, known_equivalent, score
from benchmarks.mutation.sampling import draw, package_sources, packages, shares
from benchmarks.mutation.workspace import Workspace

ROOT = Path(__file__).parents[2]


def made(source: str) -> set[str]:
    """Return what every change makes of a source of one statement, parentheses around the change left out."""
    changes = [change for one in statements(source.encode(), "m.py") for change in one.changes(source.encode())]
    return {f"{change.kind}: {change.apply(source.encode()).decode()}" for change in changes}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("f(a < b)", {"comparison: f((a <= b))", "comparison: f((a >= b))", "statement deleted: pass"}),
        ("x = a is not b in c", {"comparison: x = (a is b in c)", "comparison: x = (a is not b not in c)"}),
        ("x = a // b", {"arithmetic: x = (a * b)"}),
        ("x = a and b and c", {"and/or: x = (a or b or c)", "condition dropped: x = (a and b)"}),
        ("x = not a", {"sign dropped: x = (a)"}),
        ("x = -a", {"sign dropped: x = (a)"}),
        ("x = a if b else c", {"negated condition: x = a if (not (b)) else c"}),
        ("x = [a for a in b if c]", {"negated condition: x = [a for a in b if (not (c))]"}),
        ("x = True", {"constant: x = (False)"}),
        ("x = 7", {"constant: x = (8)", "constant: x = (6)"}),
        ("x = 1.5", {"constant: x = (3.0)"}),
        ("x = 0.0", {"constant: x = (1.0)"}),
        ("x = 'a'", {"text: x = ('')"}),
        ("x = b'a'", {"text: x = (b'')"}),
        ("x = f'{a} {b < c}'", {"text: x = ('changed')"}),
        ("x = min(a, b)", {"function: x = (max)(a, b)"}),
        ("x = g(a, b, c=d)", {"arguments swapped: x = (g(b, a, c=d))", "argument dropped: x = (g(a, b))"}),
        ("x = np.add(a, b, c)", {"arguments swapped: x = (np.add(a, c, b))"}),
        ("x = zip(a, b, strict=True)", {"arguments swapped: x = (zip(b, a, strict=True))"}),
        ("x = loads(a, strict=False)", {"argument dropped: x = (loads(a))", "constant: x = loads(a, strict=(True))"}),
        ("x.y = a", {"statement deleted: pass"}),
        ("x += 1", {"arithmetic: x -= 1", "statement deleted: pass", "constant: x += (2)", "constant: x += (0)"}),
        ("def f():\n    return a", {"nothing returned: def f():\n    return None"}),
        ("def f():\n    raise a", {"statement deleted: def f():\n    pass"}),
        ("while a:\n  break", {"negated condition: while (not (a)):\n  break", "statement: while a:\n  continue"}),
        ("if a:\n    f", {"negated condition: if (not (a)):\n    f", "statement deleted: if a:\n    pass"}),
        ("try:\n    f\nexcept E:\n    raise", {
            "statement deleted: try:\n    pass\nexcept E:\n    raise",
            "statement deleted: try:\n    f\nexcept E:\n    pass",
        }),
        ("x = 'ä' < b", {"comparison: x = ('ä' <= b)", "comparison: x = ('ä' >= b)", "text: x = ('') < b"}),
    ],
)  # fmt: skip
def test_changes_of_one_statement(source: str, expected: set[str]) -> None:
    assert made(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "x: int\n'What x is.'",
        "import a",
        "assert a < b",
        "raise InternalError(f'{a} cannot be')",
        "raise NotImplementedError",
        "if TYPE_CHECKING:\n    import a",
        "T = TypeVar('T')",
        "@overload\ndef f(a: int = 1) -> int: ...",
        "class P(Protocol[T]):\n    def f(self) -> int:\n        return 1",
        "x: Literal['a']",
        "x = a",
        "return",
    ],
)
def test_what_does_not_run_is_left_alone(source: str) -> None:
    assert made(source) == set()


def test_changes_say_where_they_are() -> None:
    source = "class A:\n    def f(self):\n        return [\n            a <\n            b]\n"
    changes = [change for one in statements(source.encode(), "p/m.py") for change in one.changes(source.encode())]
    change = next(change for change in changes if change.kind == "comparison")
    assert str(change) == "p/m.py:4: A.f: comparison: a < b -> a <= b"
    assert (change.line, change.last_line) == (4, 5)
    assert change.key == ("p/m.py", "A.f", "a <", "a < b", "a <= b")


def test_changes_are_drawn_in_proportion_and_the_same_for_the_same_seed() -> None:
    assert shares({"a": 70, "b": 29, "c": 1, "d": 0}, 10) == {"a": 7, "b": 3, "c": 0}
    assert shares({"a": 2, "b": 1}, 10) == {"a": 2, "b": 1}
    drawn = draw(ROOT, ["foundation", "main"], 12, seed=5)
    assert drawn == draw(ROOT, ["foundation", "main"], 12, seed=5) != draw(ROOT, ["foundation", "main"], 12, seed=6)
    assert len({(change.file, change.line) for change in drawn}) == 12
    for change in drawn:
        changed = change.apply((ROOT / change.file).read_bytes())
        compile(changed, change.file, "exec")


def test_every_package_of_ours_is_drawn_from() -> None:
    from tests.test_structure import MAY_IMPORT

    assert packages(ROOT) == sorted({*MAY_IMPORT, "main"})
    assert not [name for name in package_sources(ROOT, "converters") if "pb2" in name or "generate" in name]


CODE = """\
def small(value: int) -> bool:
    return value < 3


def never() -> int:
    return 7


def in_a_program() -> None:
    print(2 * 3)
"""
TESTS = """\
import subprocess
import sys

from package.module import small


def test_small() -> None:
    assert small(2)


def test_not_small() -> None:
    assert not small(9)


def test_program() -> None:
    code = "from package.module import in_a_program; in_a_program()"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"6\\n"


def test_skipped() -> None:
    import pytest

    pytest.skip("no reason")
"""


def test_a_whole_run_on_a_small_project(tmp_path: Path) -> None:
    """What no test runs is found, and what runs in a program that a test starts is noticed; a rerun costs nothing."""
    project = tmp_path / "project"
    for name, text in (("package/__init__.py", ""), ("package/module.py", CODE), ("tests/test_module.py", TESTS)):
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [sys.executable, "-m", "benchmarks.mutation", "--root", str(project), "--package", "package"]
    command += ["--work", str(tmp_path / "work"), "--pytest", "tests", "--jobs", "1", "--changes", "99", "--seed", "3"]
    ran = subprocess.run([*command, "--at_least", "90"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert (project / "package/module.py").read_text() == CODE
    assert not list(project.rglob("__pycache__"))
    assert "not used, it fails or is skipped without any change: tests/test_module.py::test_skipped" in ran.stderr
    assert ran.stdout.startswith("unreached   package/module.py:6: never: ")
    assert ran.stdout.endswith("\nall                   2      3    66.7\n")
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (0, ran.stdout, "")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_suite_that_cannot_be_collected_scores_nothing(tmp_path: Path, jobs: str) -> None:
    """Its runs would fail with any change, and every change would count as noticed."""
    project = tmp_path / "project"
    broken = "import nothing_of_that_name\n"
    files = {"package/__init__.py": "", "package/module.py": CODE, "tests/test_module.py": TESTS}
    for name, text in {**files, "tests/test_broken.py": broken}.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [sys.executable, "-m", "benchmarks.mutation", "--root", str(project), "--package", "package"]
    command += ["--work", str(tmp_path / "work"), "--pytest", "tests", "--jobs", jobs, "--changes", "3"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and ran.stdout == ""
    assert "pytest cannot collect tests/test_broken.py" in ran.stderr


CHANGE = Change("p/m.py", 3, 3, "f", "x = a < b", "comparison", "a < b", "a <= b", 10, 15, "(a <= b)")
OTHER = Change("q/n.py", 4, 4, "<module>", "X = 7", "constant", "7", "8", 20, 21, "(8)")


def test_the_ledger_keeps_what_was_noticed_and_forgets_survivors_when_tests_change(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    ledger = Ledger(path, "tests 1")
    ledger.add(CHANGE, "noticed")
    ledger.add(OTHER, "survived")
    assert ledger.knows(CHANGE) and ledger.knows(OTHER)
    later = Ledger(path, "tests 2")
    assert later.knows(CHANGE) and not later.knows(OTHER)
    later.add(OTHER, "noticed")
    assert Ledger(path, "tests 3").outcomes == {CHANGE: "noticed", OTHER: "noticed"}


def test_the_score_leaves_equivalent_changes_aside(tmp_path: Path) -> None:
    path = tmp_path / "equivalent.json"
    entry = {"file": "q/n.py", "scope": "<module>", "line": "X = 7", "before": "7", "after": "8"}
    path.write_text(json.dumps([{**entry, "reason": "nobody counts"}]))
    text, share = score({CHANGE: "survived", OTHER: "survived"}, known_equivalent(path))
    assert text.splitlines() == [
        "survived    p/m.py:3: f: comparison: a < b -> a <= b",
        "equivalent  q/n.py:4: <module>: constant: 7 -> 8",
        "            because nobody counts",
        "",
        "package         noticed     of       %",
        "p                     0      1     0.0",
        "all                   0      1     0.0",
    ]
    assert share == 0
    elsewhere = replace(OTHER, line=5, text="Y = 7")  # the same change of another line is another change
    assert (
        "survived    q/n.py:5: <module>: constant: 7 -> 8" in score({elsewhere: "survived"}, known_equivalent(path))[0]
    )
    assert score({CHANGE: "noticed", OTHER: "noticed"}, known_equivalent(path))[1] == 100
    assert known_equivalent(tmp_path / "none") == {}


def test_what_is_listed_as_equivalent_can_mostly_still_be_changed_and_has_a_reason() -> None:
    """An entry whose line is no longer there says nothing about today's code: the list is tidied before it is old."""
    listed = known_equivalent()
    sources = {file: (ROOT / file).read_bytes() for file in {key[0] for key in listed}}
    possible = {
        change.key
        for file, source in sources.items()
        for one in statements(source, file)
        for change in one.changes(source)
    }
    assert len(listed.keys() & possible) >= 0.7 * len(listed) > 5
    assert all(listed.values())


def test_a_copy_leaves_results_out_and_keeps_a_package_of_that_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("output/run.csv", "package/output/report.py", "package/__pycache__/report.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    copy = Workspace(source, tmp_path / "copy").root
    assert [path.relative_to(copy).as_posix() for path in copy.rglob("*.*")] == ["package/output/report.py"]

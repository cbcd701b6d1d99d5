"""Loaded into pytest by the mutation runner: notes what each test reaches and costs, or runs chosen tests in order.

It is copied beside the tests under the name `orrery_mutation`, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RECORD, CHOSEN, TEST = "ORRERY_MUTATION_RECORD", "ORRERY_MUTATION_CHOSEN", "ORRERY_MUTATION_TEST"
"""Environment variables: the folder to record into; the file that lists chosen tests; the test that is running."""
SETUP = " (set-up)"
"""Ends the context of what runs in a test's set-up: fixtures that its whole file may share."""
MEMORY_BYTES = 8 << 30
"""Address space of a run with a change, and of what it starts: a changed program may grow without end."""
_results: dict[str, tuple[float, bool]] = {}
_uncollected: list[str] = []


def pytest_configure() -> None:
    """Bound the memory of chosen tests."""
    if CHOSEN in os.environ:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: Any) -> Iterator[None]:
    """Tell this process's coverage, and that of the programs it starts, which test is running."""
    if RECORD in os.environ:
        _switch(item.nodeid + SETUP)
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    if RECORD not in os.environ:
        yield
        return
    _switch(item.nodeid)
    start = time.perf_counter()
    outcome: Any = yield
    _results[item.nodeid] = (time.perf_counter() - start, outcome.excinfo is None)


def pytest_collectreport(report: Any) -> None:
    """Note files that cannot even be imported: with one of them, any change would seem to be noticed."""
    if report.failed:
        _uncollected.append(report.nodeid)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keep the chosen tests, in their order."""
    if CHOSEN in os.environ:
        order = {name: at for at, name in enumerate(json.loads(Path(os.environ[CHOSEN]).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])


def pytest_sessionfinish() -> None:
    if RECORD not in os.environ:
        return
    for name, found in (("tests", _results), ("uncollected", _uncollected)):
        if found:
            (Path(os.environ[RECORD]) / f"{name}-{os.getpid()}.json").write_text(json.dumps(found))


def _switch(name: str) -> None:
    import coverage

    os.environ[TEST] = name
    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(name)

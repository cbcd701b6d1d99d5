"""Trying one change: the tests that reach its line first; if none fails, those of its file and its package."""

from __future__ import annotations

from benchmarks.mutation.changes import Change
from benchmarks.mutation.recording import Recording
from benchmarks.mutation.workspace import Workspace

WIDER_S = 120.0
"""Seconds of tests (as recorded) that are run beyond those that reach the line. Code that runs once for many tests,
such as a module's constants and what is cached, is recorded for the first of them alone or for none, and what runs in a
program whose environment a test made itself is not recorded at all: of lines that nothing reaches, all are run, and of
those that run when their module is imported all of the package."""
_SLACK_S, _FACTOR = 60.0, 8.0


def outcome(change: Change, recording: Recording, workspace: Workspace) -> str:
    """Return ``noticed``, ``survived``, or ``unreached`` where nothing runs the line."""
    reaching = recording.tests_of(change.file, change.line, change.last_line)
    own = f"tests/{change.file.split('/')[0]}/"  # and those of no package, which run whole programs
    near = {test for test in recording.seconds if test.startswith(own) or test.count("/") == 1} - (reaching or set())
    far = (recording.tests_of(change.file) or set()) - (reaching or set()) - near
    wider = [*_ordered(near, recording), *_ordered(far, recording)]
    if reaching:
        wider = _within(wider, recording)
    elif reaching is not None:  # it runs when its module is imported: any test of its package may see it
        wider = [*_ordered(near, recording), *_within(_ordered(far, recording), recording)]
    for tests in (_ordered(reaching or set(), recording), wider):
        if tests and not workspace.passes(change, tests, limit_s(tests, recording)):
            return "noticed"
    return "unreached" if reaching is None else "survived"


def limit_s(tests: list[str], recording: Recording) -> float:
    """Return how long `tests` may take before they count as hanging."""
    return _SLACK_S + _FACTOR * sum(recording.seconds[test] for test in tests)


def _ordered(tests: set[str], recording: Recording) -> list[str]:
    """Quick ones first: the first failure ends the run."""
    return sorted(tests, key=lambda test: (recording.seconds[test], test))


def _within(tests: list[str], recording: Recording) -> list[str]:
    spent, kept = 0.0, []
    for test in tests:
        spent += recording.seconds[test]
        if spent > WIDER_S:
            break
        kept.append(test)
    return kept

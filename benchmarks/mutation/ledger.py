"""What became of each change: written as it is known, so that a run that was stopped goes on; and the score."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.mutation.changes import Change, Key

EQUIVALENT = Path(__file__).with_name("equivalent.json")
"""Changes that change nothing anybody could see, each with the reason why."""


class Ledger:
    """The outcomes on one state of the code, by change, in the file `path`; `tests` names the state of the tests."""

    def __init__(self, path: Path, tests: str) -> None:
        self._path, self._tests = path, tests
        self.outcomes: dict[Change, str] = {}
        self._tried_with: dict[Change, str] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            self._note(Change(**entry["change"]), entry["outcome"], entry["tests"])

    def knows(self, change: Change) -> bool:
        """Whether the change need not be tried: it was noticed once, or not with the tests as they are now."""
        return self.outcomes.get(change) == "noticed" or self._tried_with.get(change) == self._tests

    def add(self, change: Change, outcome: str) -> None:
        """Write down one outcome."""
        self._note(change, outcome, self._tests)
        with self._path.open("a") as stream:
            stream.write(json.dumps({"outcome": outcome, "tests": self._tests, "change": asdict(change)}) + "\n")

    def _note(self, change: Change, outcome: str, tests: str) -> None:
        self.outcomes[change], self._tried_with[change] = outcome, tests


def known_equivalent(path: Path = EQUIVALENT) -> dict[Key, str]:
    """Return the reason of every change that is known to be equivalent, by its key."""
    if not path.exists():
        return {}
    entries = json.loads(path.read_text())
    return {(one["file"], one["scope"], one["line"], one["before"], one["after"]): one["reason"] for one in entries}


def score(outcomes: dict[Change, str], equivalent: dict[Key, str]) -> tuple[str, float]:
    """Return what was not noticed and the scores by package, as text, and the share of all in per cent."""
    tried: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    lines = []
    for change, outcome in sorted(outcomes.items(), key=lambda item: (item[0].file, item[0].line)):
        package = change.file.split("/")[0].removesuffix(".py")
        if outcome != "noticed" and change.key in equivalent:
            lines.append(f"equivalent  {change}\n            because {equivalent[change.key]}")
            continue
        tried[package] += 1
        noticed[package] += outcome == "noticed"
        if outcome != "noticed":
            lines.append(f"{outcome:<11} {change}")
    noticed["all"], tried["all"] = noticed.total(), tried.total()
    shares = {name: 100 * noticed[name] / count if count else 100.0 for name, count in tried.items()}
    table = [f"{'package':<14} {'noticed':>8} {'of':>6} {'%':>7}"]
    for name in (*sorted(tried.keys() - {"all"}), "all"):
        table.append(f"{name:<14} {noticed[name]:>8} {tried[name]:>6} {shares[name]:>7.1f}")
    return "\n".join([*lines, "", *table]), shares["all"]

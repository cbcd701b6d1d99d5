"""Which changes are tried: drawn at random, over the packages in proportion to their statements."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

from benchmarks.mutation.changes import Change, Statement, statements

LEFT_OUT = frozenset({"converters/chakra/generate.py"})
"""Not part of what is installed and run: rebuilds a generated file by hand."""


def packages(root: Path) -> list[str]:
    """Return what is installed of the project at `root`: its packages, and main.py."""
    found = {path.parent.name for path in root.glob("*/__init__.py")} - {"tests", "benchmarks"}
    return sorted(found | ({"main"} if (root / "main.py").is_file() else set()))


def package_sources(root: Path, package: str) -> list[str]:
    """Return the source files of a package (or the one module) that are our own, relative to `root`, in order."""
    if (root / f"{package}.py").is_file():
        return [f"{package}.py"]
    found = sorted(path.relative_to(root).as_posix() for path in (root / package).rglob("*.py"))
    return [name for name in found if not name.endswith("_pb2.py") and name not in LEFT_OUT]


def draw(root: Path, packages: list[str], count: int, seed: int) -> list[Change]:
    """Return `count` changes of different statements (fewer where there are fewer), the same for the same seed."""
    found = {package: _statements(root, package) for package in packages}
    drawn = []
    for package, share in shares({name: len(them) for name, them in found.items()}, count).items():
        random = Random(f"{seed} {package}")
        random.shuffle(found[package])
        changes = (_one(statement, root, random) for statement in found[package])
        drawn += list(islice((change for change in changes if change is not None), share))
    return drawn


def _one(statement: Statement, root: Path, random: Random) -> Change | None:
    """Draw a sort of change first, so that statements with many constants are not changed in these alone."""
    changes = statement.changes((root / statement.file).read_bytes())
    kinds = sorted({change.kind for change in changes})
    if not kinds:
        return None
    kind = random.choice(kinds)
    return random.choice([change for change in changes if change.kind == kind])


def shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Split `count` in proportion to `sizes` (largest remainders first), never more than the size itself."""
    total = sum(sizes.values())
    count = min(count, total)
    exact = {name: count * size / total for name, size in sizes.items() if size}
    split = {name: int(share) for name, share in exact.items()}
    left = count - sum(split.values())
    for name in sorted(exact, key=lambda name: (split[name] - exact[name], name))[:left]:
        split[name] += 1
    return split


def _statements(root: Path, package: str) -> list[Statement]:
    return [one for name in package_sources(root, package) for one in statements((root / name).read_bytes(), name)]

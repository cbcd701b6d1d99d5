"""``python -m trace_test``: check traces, or random batches of our own generator, against every rule. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.arguments import Parser, whole
from foundation.commands import run_command
from foundation.errors import UserError
from foundation.printable import printable
from foundation.records import dataclass
from trace_gen.precision import WIDTHS

if TYPE_CHECKING:
    from trace_test.rule import Subject, Violation

_EXAMPLES = """\
examples:
  python -m trace_test trace.txt --npu_num 4        a text trace, spread over 4 NPUs as its converter would
  python -m trace_test out/llm.0.et                 all ranks of out/llm (and out/network.yml where it stands there)
  python -m trace_test --random 200 --seed 7        200 batches of our generator: every model, parallelism and kind
"""


def parser() -> Parser:
    """Return the command line's parser."""
    result = Parser(
        prog="python -m trace_test",
        description="Check traces rule by rule; print each violation with file, row, rule and likely cause. "
        "Exit 0: all is well, 1: something is violated, 2: wrong usage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "traces", nargs="*", metavar="TRACE", help="text trace, .et file, prefix or folder of .et files"
    )
    what = result.add_argument_group("what is checked")
    what.add_argument("--random", type=whole(1), metavar="N", help="check N random batches of the trace generator")
    what.add_argument("--seed", type=whole(0), default=0, metavar="S", help="seed of --random (default: 0)")
    what.add_argument("--list-rules", "--list_rules", action="store_true", help="explain every rule and stop")
    texts = result.add_argument_group("texts")
    texts.add_argument("--npu_num", "--npu-num", type=whole(1), metavar="N", help="NPUs of a text that names no ranks")
    texts.add_argument(
        "--npu_group", "--npu-group", type=whole(1), metavar="G", help="its pipeline stages (default: header)"
    )
    texts.add_argument("--fp", type=whole(1), choices=WIDTHS, default=16, help="bits of a number (default: 16)")
    graphs = result.add_argument_group(".et files")
    graphs.add_argument(
        "--network", type=Path, metavar="FILE", help="the network.yml they were made for (default: the one beside them)"
    )
    return result


def main() -> int:
    """Run the command line of this process; return the exit code."""
    arguments = parser().parse_args()
    if arguments.list_rules:
        return _list_rules()
    if not arguments.traces and arguments.random is None:
        raise UserError("nothing to check", fix="name traces, or give --random N")
    found = _check(_subjects(arguments))
    print(found)
    return 1 if found.broken else 0


def _subjects(arguments: argparse.Namespace) -> Iterable[Subject]:
    from astra_files.network import NetworkConfig
    from trace_test.random_batches import random_subjects
    from trace_test.subjects import Reading, in_folder, read_subject

    network = NetworkConfig.from_file(arguments.network) if arguments.network is not None else None
    reading = Reading(arguments.npu_num, arguments.npu_group, arguments.fp, network)
    for name in arguments.traces:
        for one in in_folder(name):
            yield read_subject(one, reading)
    if arguments.random is not None:
        yield from random_subjects(arguments.random, arguments.seed)


@dataclass(slots=True)
class _Found:
    """How many subjects were checked, how many have violations, and which could not be checked for which rules."""

    checked: int = 0
    broken: int = 0
    partly: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.broken:
            return f"{self.checked} checked, {self.broken} with violations"
        rest = "no rule that could be checked is violated" if self.partly else "all rules hold"
        return f"{self.checked} checked, {rest}"


def _check(subjects: Iterable[Subject]) -> _Found:
    """Print what is violated, and what could not be checked of files."""
    from trace_test.rule import rules, run_rules

    found = _Found()
    for subject in subjects:
        outcome = run_rules(subject)
        random = subject.source.startswith("random")
        found.checked += 1
        found.broken += bool(outcome.violations)
        if outcome.skipped and not random:
            found.partly.setdefault(tuple(outcome.skipped), []).append(subject.source)
        for name, violations in outcome.violations.items():
            for violation in violations:
                print(printable(f"{_file(subject, violation)}: {violation.where}: {name}: {violation.what}"))
            print(f"    likely cause: {rules.get(name).cause}")
    for skipped, (first, *others) in found.partly.items():
        who = f"{first} and {len(others)} more" if others else first
        print(printable(f"{who}: cannot be checked for {', '.join(skipped)}"))
    return found


def _file(subject: Subject, violation: Violation) -> str:
    """Return the file in which a violation is: of .et files, its rank's."""
    if subject.prefix and violation.rank is not None:
        return f"{subject.prefix}.{violation.rank}.et"
    return subject.source


def _list_rules() -> int:
    from trace_test.rule import rules

    for name in rules:
        rule = rules.get(name)
        print(f"{name} (needs a {rule.needs})\n    {rule.about}\n    likely cause: {rule.cause}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

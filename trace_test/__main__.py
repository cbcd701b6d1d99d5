"""``python -m trace_test``: check traces, or random batches of our own generator, against every rule. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from foundation.commands import run_command
from foundation.errors import UserError

if TYPE_CHECKING:
    from trace_test.rule import Subject

_EXAMPLES = """\
examples:
  python -m trace_test trace.txt --npu_num 4        a text trace, spread over 4 NPUs as its converter would
  python -m trace_test out/llm.0.et                 all ranks of out/llm
  python -m trace_test --random 200 --seed 7        200 batches of our generator: every model, parallelism and kind
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    result = argparse.ArgumentParser(
        prog="python -m trace_test",
        description="Check traces rule by rule; print each violation with file, row, rule and likely cause. "
        "Exit 0: all is well, 1: something is violated, 2: wrong usage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument(
        "traces", nargs="*", metavar="TRACE", help="text trace, .et file, prefix or folder of .et files"
    )
    what = result.add_argument_group("what is checked")
    what.add_argument("--random", type=int, metavar="N", help="check N random batches of the trace generator")
    what.add_argument("--seed", type=int, default=0, metavar="S", help="seed of --random (default: 0)")
    what.add_argument("--list-rules", "--list_rules", action="store_true", help="explain every rule and stop")
    texts = result.add_argument_group("texts")
    texts.add_argument("--npu_num", "--npu-num", type=int, metavar="N", help="NPUs of a text that names no ranks")
    texts.add_argument(
        "--npu_group", "--npu-group", type=int, metavar="G", help="its pipeline stages (default: header)"
    )
    texts.add_argument("--fp", type=int, default=16, metavar="BITS", help="bits of a number (default: 16)")
    return result


def main() -> int:
    """Run the command line of this process; return the exit code."""
    arguments = parser().parse_args()
    if arguments.list_rules:
        return _list_rules()
    if not arguments.traces and arguments.random is None:
        raise UserError("nothing to check", fix="name traces, or give --random N")
    if arguments.random is not None and arguments.random < 1:
        raise UserError(f"{arguments.random} batches", field="--random", fix="give at least 1")
    broken, checked = _check(_subjects(arguments))
    print(f"{checked} checked, {broken} with violations" if broken else f"{checked} checked, all rules hold")
    return 1 if broken else 0


def _subjects(arguments: argparse.Namespace) -> Iterable[Subject]:
    from trace_test.random_batches import random_subjects
    from trace_test.subjects import Reading, in_folder, read_subject

    reading = Reading(arguments.npu_num, arguments.npu_group, arguments.fp)
    for name in arguments.traces:
        for one in in_folder(name):
            yield read_subject(one, reading)
    if arguments.random is not None:
        yield from random_subjects(arguments.random, arguments.seed)


def _check(subjects: Iterable[Subject]) -> tuple[int, int]:
    """Print what is violated; return how many subjects have violations, and how many there are."""
    from trace_test.rule import rules, run_rules

    broken = checked = 0
    for subject in subjects:
        checked += 1
        outcome = run_rules(subject)
        broken += bool(outcome.violations)
        for name, found in outcome.violations.items():
            for violation in found:
                print(f"{subject.source}: {violation.where}: {name}: {violation.what}")
            print(f"    likely cause: {rules.get(name).cause}")
        if outcome.skipped and not subject.source.startswith("random"):
            print(f"{subject.source}: cannot be checked for {', '.join(outcome.skipped)}")
    return broken, checked


def _list_rules() -> int:
    from trace_test.rule import rules

    for name in rules:
        rule = rules.get(name)
        print(f"{name} (needs a {rule.needs})\n    {rule.about}\n    likely cause: {rule.cause}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

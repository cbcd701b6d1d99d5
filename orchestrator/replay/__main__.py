"""``python -m orchestrator.replay CASE.json``: print what the scheduler decides, or check it against a recording."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.arguments import Parser
from foundation.commands import run_command
from foundation.errors import UserError

BESIDE = ("expected.json", "expected.json.gz")


def parser() -> Parser:
    """Return the command line's grammar."""
    result = Parser(
        prog="python -m orchestrator.replay",
        description="Replay a scheduling case with vLLM's rules and print every step and request as JSON "
        "(times in microseconds).",
    )
    result.add_argument("case", metavar="CASE.json", type=Path, help="settings, latency formula and requests")
    result.add_argument(
        "--check",
        metavar="EXPECTED",
        nargs="?",
        const=Path(),
        type=Path,
        help="compare with a recording instead of printing (default: expected.json or expected.json.gz beside the "
        "case); a difference is named by step and column and exits 1",
    )
    result.add_argument(
        "--vllm_version",
        "--vllm-version",
        choices=("0.19", "0.33"),
        default="0.19",
        help="the rule set (default: %(default)s)",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    # Imported late: --help must not wait for numpy.
    from orchestrator.replay.case import read_case
    from orchestrator.replay.run import replay

    case = read_case(options.case, options.vllm_version)
    if options.check is None:
        print(json.dumps(replay(case), separators=(",", ":")))
        return 0
    return _check(options.check, options.case, replay(case))


def _check(path: Path, case: Path, actual: dict[str, Any]) -> int:
    from orchestrator.replay.compare import first_difference

    expected = path if path != Path() else _beside(case)
    difference = first_difference(_read_recording(expected), actual)
    if difference is not None:
        print(f"{case}: {difference}")
        return 1
    print(f"{case}: {actual['num_steps']} steps and {len(actual['requests'])} requests are equal")
    return 0


def _beside(case: Path) -> Path:
    for name in BESIDE:
        if (case.parent / name).exists():
            return case.parent / name
    raise UserError(f"no {' or '.join(BESIDE)} beside the case", path=case, field="--check", fix="name the recording")


def _read_recording(path: Path) -> Mapping[str, Any]:
    from foundation.bounds import DATA_BYTES
    from foundation.documents import read_json
    from foundation.fields import Fields

    fields = Fields.of(read_json(path, "recording", DATA_BYTES))
    for name in ("step_columns", "steps", "request_columns", "requests"):
        rows = fields.values.get(name)
        if rows is None:
            fields.problem(f"{name} is missing", fix="give a list")
        elif name.endswith("_columns"):
            fields.texts(name)
        elif not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            fields.wrong(name, "a list of rows, each a list")
    fields.finish()
    return fields.values


if __name__ == "__main__":
    sys.exit(run_command(main))

"""``python -m orchestrator.reallm SYSTEM.yaml FOLDER``: make run files of a ReaLLM system file. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from foundation.arguments import Parser
from foundation.commands import run_command
from foundation.printable import printable

_EXAMPLE = """\
example:
  python -m orchestrator.reallm system.yaml runs --code AzureLLMInferenceTrace_code.csv \\
      --conv AzureLLMInferenceTrace_conv.csv
  python -m orchestrator.run_files runs/*.yaml
"""


def parser() -> Parser:
    """Return the command line's grammar."""
    result = Parser(
        prog="python -m orchestrator.reallm",
        description="Make run files of a ReaLLM system file: one a combination of its models, parallelisms, policies, "
        "chunks and traffic, with the workloads and networks that they name.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("system", metavar="SYSTEM.yaml", type=Path, help="ReaLLM's system file")
    result.add_argument("folder", metavar="FOLDER", type=Path, help="folder to write to")
    for task, what in (("code", "code completion"), ("conv", "conversation")):
        help_text = f"requests whose lengths task {task} draws ({what}): the Azure trace, or any workload file"
        result.add_argument(f"--{task}", metavar="FILE", type=Path, help=help_text)
    result.add_argument(
        "--devices",
        metavar="FOLDER",
        type=Path,
        help="folder of ReaLLM's device files (default: ../device beside the system file's folder); a device that has "
        "no file there is one of ours",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    # Imported late: --help must not wait for numpy.
    from orchestrator.reallm.importing import Given, import_system

    lengths = {task: path for task, path in (("code", options.code), ("conv", options.conv)) if path is not None}
    made = import_system(Given(options.system, options.folder, lengths, options.devices))
    for note in made.notes:
        print(printable(f"note: {note}"))
    for name, why in made.left_out.items():
        print(printable(f"left out: {name}: {why}"))
    print(printable(f"{len(made.run_files)} run files written to {options.folder}: simulate them with"))
    print(printable(f"    python -m orchestrator.run_files {options.folder}/*.yaml"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

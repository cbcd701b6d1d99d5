"""``python -m converters``: convert traces, show and compare .et files. See --help."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from foundation.arguments import Parser, whole
from foundation.commands import run_command
from foundation.errors import UserError
from foundation.printable import printable

_EXAMPLES = """\
examples:
  python -m converters trace.txt out/llm --npu_num 4 --npu_group 2    .et files out/llm.0.et ... out/llm.3.et
  python -m converters trace.txt trace.orrery.txt --to orrery --npu_num 4
  python -m converters --stats trace.txt
  python -m converters --show out/llm.0.et --dot | dot -Tsvg > llm.svg
  python -m converters --diff a.0.et b.0.et
  python -m converters --merge out timeline.json            (python -m analytical --timeline simulates, too)
"""
_SIMULATED = {"network": "network", "system": "system", "memory": "remote-memory"}
"""Flags of the files that a simulation needs, and what the embedded backend's own command calls them."""


def parser() -> Parser:
    """Return the command line's parser."""
    result = Parser(
        prog="python -m converters",
        description="Convert text traces to Chakra execution traces (.et) and each other; look into .et files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("files", nargs="*", metavar="FILE", help="what the action works on, as in the examples")
    actions = result.add_argument_group("actions (default: convert a text trace)").add_mutually_exclusive_group()
    actions.add_argument("--stats", action="store_true", help="sum a text trace: rows, time (ns), bytes, collectives")
    actions.add_argument("--show", action="store_true", help="print the nodes of an .et file, one a line")
    actions.add_argument(
        "--diff", action="store_true", help="compare two .et files node by node; exit 1 if they differ"
    )
    actions.add_argument("--merge", action="store_true", help="ranks of a folder (or PREFIX) into one Chrome trace")
    convert = result.add_argument_group("converting")
    convert.add_argument("--to", default="et", metavar="FORMAT", help="et, or a text format: orca, colocated, prefill, "
                         "decode, event, orrery (default: et)")  # fmt: skip
    _flag(convert, "npu_num", type=whole(1), metavar="N", help="NPUs to spread a trace over (default: one a stage)")
    _flag(convert, "npu_group", type=whole(1), metavar="G", help="pipeline stages (default: what the header says)")
    _flag(convert, "network_dims", metavar="A,B", help="the network's npus_count, so that collectives name its "
          "dimensions in place of communicator groups (default: groups)")  # fmt: skip
    _flag(convert, "step", type=whole(0), default=0, metavar="K", help="which step of a trace of several (default: 0)")
    _flag(convert, "true_work", action="store_true", help="FLOPs and bytes in place of exact nanoseconds, for a "
          "backend that times operators itself")  # fmt: skip
    show = result.add_argument_group("showing").add_mutually_exclusive_group()
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    show.add_argument("--dot", action="store_true", help="the dependency graph for Graphviz")
    for name in _SIMULATED:
        result.add_argument(f"--{name}", help=argparse.SUPPRESS)  # known, to say who takes them
    return result


def main() -> int:
    """Run the command line of this process; return the exit code."""
    arguments = parser().parse_args()
    if arguments.stats:
        return _stats(arguments)
    if arguments.show:
        return _show(arguments)
    if arguments.diff:
        return _diff(arguments)
    if arguments.merge:
        return _merge(arguments)
    return _convert(arguments)


def _flag(group: argparse._ArgumentGroup, name: str, **options: object) -> None:
    """Add a flag in both spellings."""
    spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    group.add_argument(*spellings, dest=name, **options)  # type: ignore[arg-type]


def _files(arguments: argparse.Namespace, *names: str) -> list[str]:
    files: list[str] = arguments.files
    if len(files) != len(names):
        raise UserError(f"{len(files)} files are named", fix=f"name {len(names)}: {' '.join(names)}")
    return files


def _convert(arguments: argparse.Namespace) -> int:
    source, output = _files(arguments, "TRACE", "PREFIX" if arguments.to == "et" else "OUTPUT")
    from converters.convert import Spreading, text_to_et, text_to_text

    where = Spreading(arguments.npu_num, arguments.npu_group, _dims(arguments.network_dims))
    if arguments.to != "et":
        text_to_text(source, output, arguments.to, where)
        print(printable(output))
        return 0
    written = text_to_et(source, output, where, step=arguments.step, true_work=arguments.true_work)
    shown = written[0] if len(written) == 1 else f"{written[0]} ... {written[-1]} ({len(written)} files)"
    print(printable(str(shown)))
    return 0


def _dims(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < len(part) < 7 and int(part) > 0 for part in parts):
        raise UserError(f"{text!r} does not list the sizes of dimensions", field="--network_dims", fix="write 4,2")
    return [int(part) for part in parts]


def _stats(arguments: argparse.Namespace) -> int:
    (source,) = _files(arguments, "TRACE")
    from converters.convert import Spreading, check_step, open_placed
    from converters.statistics import report, summarise

    spread = arguments.npu_num is not None or arguments.npu_group is not None
    stream = open_placed(source, Spreading(arguments.npu_num, arguments.npu_group), spread=spread)
    check_step(stream, arguments.step)
    print(report(summarise(stream, arguments.step)))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    (source,) = _files(arguments, "FILE.et")
    from converters.chakra import inspect

    shown = inspect.show_text
    if arguments.json or arguments.dot:
        shown = inspect.show_json if arguments.json else inspect.show_dot
    for line in shown(source):
        print(line)
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    first, second = _files(arguments, "A.et", "B.et")
    from converters.chakra.inspect import differences

    found = 0
    for line in differences(first, second):
        print(line)
        found += 1
    return 1 if found else 0


def _merge(arguments: argparse.Namespace) -> int:
    folder, output = _files(arguments, "FOLDER", "OUTPUT.json")
    from converters.chakra import read_graph
    from converters.trace_events import write_timeline
    from converters.unsimulated import find_prefix, unsimulated

    prefix = find_prefix(folder)
    _refuse_to_simulate(arguments, prefix, output)
    graph = read_graph(prefix)
    write_timeline(output, graph.num_ranks, unsimulated(graph))
    print(printable(output))
    return 0


def _refuse_to_simulate(arguments: argparse.Namespace, prefix: Path, output: str) -> None:
    """Say who simulates when a user gives the files for it: backends know the converters, never the reverse."""
    given = {name: getattr(arguments, name) for name in _SIMULATED if getattr(arguments, name) is not None}
    if not given:
        return
    from converters.chakra import GROUPS_SUFFIX

    files: dict[str, Path | str] = {"workload-configuration": prefix}
    files |= {f"{flag}-configuration": given.get(name, f"{name.upper()}-FILE") for name, flag in _SIMULATED.items()}
    groups = Path(f"{prefix}{GROUPS_SUFFIX}")
    files |= {"comm-group-configuration": groups} if groups.exists() else {}
    files["timeline"] = output
    command = ["python", "-m", "analytical", *(f"--{flag}={path}" for flag, path in files.items())]
    raise UserError(
        "merging simulates nothing",
        field=f"--{next(iter(given))}",
        fix=f"the embedded backend does: {shlex.join(command)}",
    )


if __name__ == "__main__":
    sys.exit(run_command(main))

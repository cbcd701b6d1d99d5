"""The main job, `orrery run`, which is also what `orrery` does without a command: simulate one serving run.

Everything heavy is imported after the flags are read, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text
from orchestrator.commands import Command, commands
from orchestrator.settings.places import located_in
from orchestrator.settings.specification import RunCommand, RunSpec, commanded, given_by


def simulate(arguments: Sequence[str]) -> int:
    """Run the main job with the given command-line arguments; return the exit code."""
    wanted = [text for flag, text in _TEXTS.items() if flag in arguments]
    if wanted:
        if any(argument.startswith("--plugin") for argument in arguments):
            given_by(arguments)  # what it adds is explained as well
        print(wanted[0]())
        return 0
    spec, layers = commanded(arguments)
    from orchestrator.run_job import run

    with located_in(layers):
        return run(spec, sys.stdout, layers.notes)


def _help() -> str:
    others = "; ".join(f"{name}: {commands.get(name).summary}" for name in commands)
    return help_text(
        catalogue(RunCommand),
        "main.py [COMMAND] [FLAGS]",
        "Simulate one LLM serving run: requests in, a table of latencies out.",
        "Hyphens may stand for underscores in flags. GB is 1e9 bytes unless said otherwise. --schema prints the JSON "
        f"schema of run files. Commands, each with a --help of its own ({others}); without one it is run.",
    )


def _schema() -> str:
    import json

    from foundation.settings.schema import json_schema

    return json.dumps(json_schema(catalogue(RunSpec), "A run of Orrery"), indent=2)


_TEXTS = {"-h": _help, "--help": _help, "--schema": _schema}
"""Flags that are answered with a text."""

commands.register("run")(Command("simulate one serving run", simulate))

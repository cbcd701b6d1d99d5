"""`orrery models`: what models there are, with their figures and sources.

orrery models                 a table of all
orrery models Llama-3.1-8B    one of them, every figure
orrery models --json          the same for programs
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, read
from orchestrator.commands import Command, commands


@dataclass(frozen=True)
class ModelsCommand:
    """What the command is asked for."""

    name: str | None = setting(
        None,
        "model to tell everything of, given without a flag; or the path of a config.json or its folder",
        shown_default="all are listed",
    )
    json: bool = setting(False, "print JSON")


def run(arguments: Sequence[str]) -> int:
    """Print what the command line asks for; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(ModelsCommand),
                "orrery models [NAME] [FLAGS]",
                "List what models there are, with their figures and sources.",
                "Weights are as the checkpoint stores them, the KV cache in 16 bits. See docs/models_and_hardware.md.",
            )
        )
        return 0
    from orchestrator.listing import models
    from orchestrator.listing.telling import tell

    wanted = read(ModelsCommand, Layers(flags=parse(arguments, catalogue(ModelsCommand), first="name")))
    tell(models, wanted.name, as_json=wanted.json)
    return 0


commands.register("models")(Command("list what models there are, with their figures and sources", run))

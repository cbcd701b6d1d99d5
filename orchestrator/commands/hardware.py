"""`orrery hardware`: what devices, nodes and fabrics there are, with their figures and sources.

orrery hardware                 a table of all
orrery hardware H200            one of them, every figure
orrery hardware --json          the same for programs
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
class HardwareCommand:
    """What the command is asked for."""

    name: str | None = setting(
        None,
        "device, node or fabric to tell everything of, given without a flag; or the path of a device's file",
        shown_default="all are listed",
    )
    json: bool = setting(False, "print JSON")


def run(arguments: Sequence[str]) -> int:
    """Print what the command line asks for; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(HardwareCommand),
                "orrery hardware [NAME] [FLAGS]",
                "List what devices, nodes and fabrics there are, with their figures and sources.",
                "Figures are those of configs/hardware, configs/nodes and configs/fabrics. "
                "See docs/models_and_hardware.md.",
            )
        )
        return 0
    from orchestrator.listing import devices
    from orchestrator.listing.telling import tell

    wanted = read(HardwareCommand, Layers(flags=parse(arguments, catalogue(HardwareCommand), first="name")))
    tell(devices, wanted.name, as_json=wanted.json)
    return 0


commands.register("hardware")(
    Command("list what devices, nodes and fabrics there are, with their figures and sources", run)
)

"""`orrery profile-gpu`: enters a GPU into the estimator's registry, with the bandwidth of its memory.

orrery profile-gpu                                               the GPU that is here, through PyTorch
orrery profile-gpu --gpu "My GPU" --memory_bandwidth 1555        any GPU, GB/s
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, read
from orchestrator.commands import Command, commands


@dataclass(frozen=True)
class ProfileGpuSettings:
    """What the command is asked for."""

    gpu: str | None = setting(
        None,
        "the GPU's name; that of a shipped device, or a hardware file, has a bandwidth",
        shown_default="the one that PyTorch finds",
    )
    memory_bandwidth: float | None = setting(
        None,
        "bandwidth of its memory",
        unit="GB/s (1e9)",
        above=0,
        most=1e9,
        shown_default="the shipped device's; of others left to be filled in",
    )
    registry: Path = setting(Path("data"), "folder of gpu.json", folder=True)


def run(arguments: Sequence[str]) -> int:
    """Enter the GPU that the command line names; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(ProfileGpuSettings),
                "main.py profile-gpu [FLAGS]",
                "Enter a GPU into gpu.json of the estimator's registry. Its bandwidth is not measured.",
                "An entry keeps its bandwidth unless another is given. See docs/estimator.md.",
            )
        )
        return 0
    _enter(read(ProfileGpuSettings, Layers(flags=parse(arguments, catalogue(ProfileGpuSettings)))))
    return 0


def _enter(wanted: ProfileGpuSettings) -> None:
    from orchestrator.estimating.entries import shipped_device
    from orchestrator.estimating.gpu import present_gpu
    from orchestrator.estimating.registries import BANDWIDTH, Registries

    name = wanted.gpu or present_gpu()
    if name is None:
        raise UserError("no GPU is named, and PyTorch finds none here", field="--gpu", fix="name one")
    registries, device = Registries(wanted.registry), shipped_device(name)
    name = name if device is None else device.name
    if wanted.memory_bandwidth is None and registries.has_gpu(name):
        print(f"{registries.gpus}: {name} is there already, and stays as it is")
        return
    if wanted.memory_bandwidth is not None:
        bandwidth, source = wanted.memory_bandwidth * 1e9, "given by hand"
    elif device is not None:
        bandwidth, source = device.memory_bandwidth, f"device {device.name}, {device.device}"
    else:
        registries.add_gpu(name, None, "to be filled in")
        print(f"{registries.gpus}: {name} is entered without a bandwidth; write its {BANDWIDTH[0]} (GB/s, 1e9 bytes)")
        return
    registries.add_gpu(name, bandwidth, source)
    print(f"{registries.gpus}: {name}, {bandwidth / 1e9:g} GB/s ({source})")


commands.register("profile-gpu")(Command("enter a GPU for estimate", run))

"""The combinations of a system file's lists, each as the settings of a run; those that cannot be, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import field
from itertools import starmap
from typing import Any

from foundation.records import dataclass
from orchestrator.reallm.degrees import Degrees
from orchestrator.reallm.network import why_not
from orchestrator.reallm.system_file import MIXTURES, MODELS, POLICIES, SystemFile


@dataclass(frozen=True, slots=True)
class Engine:
    """One combination but for its traffic: what a run's engine is made of, by ReaLLM's names."""

    model: str
    degrees: Degrees
    algorithm: str
    chunk: int | None

    @property
    def name(self) -> str:
        """What tells it from the others, as part of a file's name."""
        chunk = [] if self.chunk is None else [f"chunk{self.chunk}"]
        return "-".join([self.model, self.degrees.text, self.algorithm, *chunk])

    def settings(self) -> dict[str, Any]:
        """Return what is set for it, by the names of flags, but for device and network."""
        degrees = self.degrees
        values: dict[str, Any] = {
            "model_name": MODELS[self.model],
            "tensor_parallel_size": degrees.sharing,
            "pipeline_parallel_size": degrees.pipeline,
        }
        if degrees.context > 1:
            values["cp_size"] = degrees.context
        if degrees.expert > 1:
            values["enable_expert_parallel"] = True
        return values | _policy(self.algorithm, self.chunk)


@dataclass(slots=True)
class Plan:
    """The engines of a file that can be, and why others cannot, by their names."""

    engines: list[Engine] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def plan(system: SystemFile) -> Plan:
    """Return every combination of a file's lists, as far as the file itself tells what can be."""
    made = Plan()
    taken = {degrees.devices for degrees in system.parallelisms}
    for devices in system.num_devices if len(system.num_devices) > 1 else ():
        if devices not in taken:
            made.left_out[f"num_devices {devices}"] = f"the parallelisms take {_listed(taken)} devices"
    for engine in starmap(Engine, system.engines):
        why = _impossible(engine, system)
        if why:
            made.left_out[engine.name] = why
        else:
            made.engines.append(engine)
    return made


def _impossible(engine: Engine, system: SystemFile) -> str:
    degrees = engine.degrees
    if degrees.devices not in system.num_devices:
        return f"{degrees.text} takes {degrees.devices} devices, num_devices is {_listed(system.num_devices)}"
    if degrees.expert > 1 and engine.model not in MIXTURES:
        return f"{degrees.text} spreads experts, of which {engine.model} has none"
    return why_not(system.io_algorithm, degrees)


def _listed(numbers: Collection[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


def _policy(algorithm: str, chunk: int | None) -> dict[str, Any]:
    """Return the policy that does what ReaLLM's does."""
    values: dict[str, Any] = {"scheduling": POLICIES[algorithm]}
    return values if chunk is None else values | {"prefill_chunk": chunk}


def notes(system: SystemFile) -> Sequence[str]:
    """Return what a user should know of how a file's runs differ from what ReaLLM makes of it."""
    said = list(system.notes)
    if "baseline" in system.algorithms:
        said.append("baseline: the answers of a batch are returned together, when the last of them ends")
    if any(degrees.expert > 1 for degrees in system.parallelisms):
        said.append("ep: the devices of ep and tp share attention by heads, and hold whole experts")
    if system.io_algorithm == "multishot":
        said.append("multishot: a step to all peers at once, over which a device's bandwidth is divided")
    return said

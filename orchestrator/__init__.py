"""The serving system: what a run is, how it is simulated, what it leaves.

For programs: `Simulation(RunSpec.of(...)).run()` returns a `RunResult`; an `Observer` is told of a run as it goes and
may `Stop` it. See docs/api.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.observers.interface import Observer, Stop
    from orchestrator.result import RunResult
    from orchestrator.settings.specification import EngineSpec, RunSpec
    from orchestrator.simulation import Simulation

__all__ = ["EngineSpec", "Observer", "RunResult", "RunSpec", "Simulation", "Stop"]


def __getattr__(name: str) -> Any:
    """Import what a program asks for when it asks, so that `--help` loads none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator import result, simulation
    from orchestrator.observers import interface
    from orchestrator.settings import specification

    homes = (interface, result, simulation, specification)
    return next(vars(home)[name] for home in homes if name in vars(home))

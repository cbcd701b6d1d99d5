"""`--backend astra-sim`, `docker` and `spool`: the settings of the ways to an ASTRA-sim that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analytical.machine.options import LARGEST_SCALE, MOST_QUEUES
from foundation.records import dataclass
from foundation.settings import setting

if TYPE_CHECKING:
    from external.astra_sim.backend import AstraSimBackend

LONGEST_TIMEOUT_S = 1e6
"""Eleven days."""
MOST_JOBS = 1024


@dataclass(frozen=True)
class AstraSimSettings:
    """What all of them share: the binary's own flags, the cache, limits."""

    num_queues_per_dim: int = setting(1, "queues of collectives a network dimension", least=1, most=MOST_QUEUES)
    injection_scale: float = setting(1.0, "factor on endpoint-delay", least=0, most=LARGEST_SCALE)
    rendezvous_protocol: bool = setting(False, "receivers ask for a message before it is sent")
    cache_dir: str | None = setting(
        None, "folder of the cache of simulated graphs", bearing="way", shown_default="the user's cache folder"
    )
    cache: bool = setting(True, "read and write the cache of simulated graphs", bearing="way")
    work_dir: str | None = setting(
        None,
        "folder in which graphs are handed over",
        bearing="way",
        shown_default="the system's temporary folder",
    )
    backend_timeout: float = setting(
        600.0, "seconds that a graph may take", above=0, most=LONGEST_TIMEOUT_S, bearing="way"
    )
    backend_jobs: int | None = setting(
        None, "steps simulated at a time", least=1, most=MOST_JOBS, bearing="way", shown_default="the cores, 4 at most"
    )

    def options(self) -> dict[str, str]:
        """Return the settings as `external.astra_sim.factories` takes them."""
        named = {
            name: str(getattr(self, name))
            for name in (
                "num_queues_per_dim",
                "injection_scale",
                "cache_dir",
                "work_dir",
                "backend_timeout",
                "backend_jobs",
            )
            if getattr(self, name) is not None
        }
        named["rendezvous_protocol"] = str(self.rendezvous_protocol).lower()
        return named if self.cache else {**named, "no_cache": "1"}


@dataclass(frozen=True)
class ProcessSettings(AstraSimSettings):
    """A binary, started for every graph."""

    astra_sim: str | None = setting(None, "the ASTRA-sim binary", shown_default="$ORRERY_ASTRA_SIM")

    def start(self, *, network: str, system: str, memory: str) -> AstraSimBackend:
        """Return the backend; no binary is a `UserError`."""
        from external.astra_sim.factories import create_process

        named = {"astra_sim": self.astra_sim} if self.astra_sim else {}
        return create_process(network=network, system=system, memory=memory, options={**self.options(), **named})


@dataclass(frozen=True)
class ContainerSettings(AstraSimSettings):
    """A container that stays up for the whole run."""

    astra_sim_image: str | None = setting(
        None, "container image that holds an ASTRA-sim binary", shown_default="$ASTRA_SIM_IMAGE, else orrery-astra-sim"
    )

    def start(self, *, network: str, system: str, memory: str) -> AstraSimBackend:
        """Return the backend, its container started."""
        from external.astra_sim.factories import create_docker

        named = {"astra_sim_image": self.astra_sim_image} if self.astra_sim_image else {}
        return create_docker(network=network, system=system, memory=memory, options={**self.options(), **named})


@dataclass(frozen=True)
class SpoolSettings(AstraSimSettings):
    """Whoever serves a folder."""

    spool_dir: str | None = setting(
        None, "folder shared with whoever serves it", bearing="way", shown_default="$ORRERY_SPOOL_DIR"
    )

    def start(self, *, network: str, system: str, memory: str) -> AstraSimBackend:
        """Return the backend; no folder is a `UserError`."""
        from external.astra_sim.factories import create_spool

        named = {"spool_dir": self.spool_dir} if self.spool_dir else {}
        return create_spool(network=network, system=system, memory=memory, options={**self.options(), **named})

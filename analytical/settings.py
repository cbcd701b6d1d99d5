"""`--backend embedded`: the settings of the backend in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analytical.machine.options import LARGEST_SCALE, MOST_QUEUES
from foundation.records import dataclass
from foundation.settings import setting

if TYPE_CHECKING:
    from analytical.embedded import EmbeddedBackend


@dataclass(frozen=True)
class EmbeddedSettings:
    """In this process. What ASTRA-sim's command line says beside its files, and which of its networks is meant."""

    congestion: str = setting(
        "unaware",
        "ASTRA-sim's congestion-unaware or (one dimension) congestion-aware network",
        choices=("unaware", "aware"),
    )
    num_queues_per_dim: int = setting(1, "queues of collectives a network dimension", least=1, most=MOST_QUEUES)
    injection_scale: float = setting(1.0, "factor on endpoint-delay", least=0, most=LARGEST_SCALE)
    rendezvous_protocol: bool = setting(False, "receivers ask for a message before it is sent")

    def start(self, *, network: str, system: str, memory: str) -> EmbeddedBackend:
        """Return the backend for the text of the three configuration files."""
        from analytical.embedded import create

        options = {
            "congestion": self.congestion,
            "num_queues_per_dim": str(self.num_queues_per_dim),
            "injection_scale": str(self.injection_scale),
            "rendezvous_protocol": str(self.rendezvous_protocol).lower(),
        }
        return create(network=network, system=system, memory=memory, options=options)

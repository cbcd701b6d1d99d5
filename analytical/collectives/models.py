"""What all simulations of one machine share: rings, custom graphs, and the phases solved so far."""

from __future__ import annotations

from analytical.collectives.custom import CustomGraphs
from analytical.collectives.phases import PhaseModels
from analytical.collectives.plan import RingCache
from analytical.machine.description import Machine
from analytical.machine.network import DelayModel, check_aware


class Models:
    """What simulations of one machine share."""

    def __init__(self, machine: Machine) -> None:
        if machine.options.aware:
            check_aware(machine.network)
        self.machine = machine
        self.delays = DelayModel(machine.network)
        self.rings = RingCache()
        self.custom = CustomGraphs()
        self.phases = PhaseModels(self.delays, machine.system, machine.options.injection_scale)

"""What the host adds to a step: deciding it, preparing its inputs, launching its kernels; and how much of it shows.

    asynchronous, decodes only      max(host, device)       the host prepares a step while the one before runs
    asynchronous, with prompts      host + device           requests that come in are prepared when their turn has come
    synchronous                     host + device

Where a step was not captured as a graph (eager execution, or more tokens than the largest graph), every operator is
launched by itself: the device is never faster than the host launches. Launching is the host's time, too: while it
launches a step it prepares no other, so a step of decodes takes max(host + launches, device).

Which of a step's time is the host's is told as a class of work of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.pricing.graphs import CapturedGraphs
from orchestrator.pricing.interface import Cost, Pricing

IntArray = NDArray[np.int64]
HOST = "host"


@dataclass(frozen=True, slots=True)
class HostTimes:
    """Times of the host (ns): `step_ns` for any step, `request_ns` for each request in it, `launch_ns` an operator.

    `hidden`: steps of decodes are prepared while the device runs the step before.
    """

    step_ns: int = 0
    request_ns: int = 0
    launch_ns: int = 0
    hidden: bool = False

    def __bool__(self) -> bool:
        """Whether the host takes any time."""
        return bool(self.step_ns or self.request_ns or self.launch_ns)


class HostPricing:
    """Adds what shows of the host's `times` to what `device` says.

    `operators` ``[stages]``: what a stage launches in a step that is not one of `graphs`.
    """

    def __init__(self, device: Pricing, times: HostTimes, graphs: CapturedGraphs, operators: Sequence[int]) -> None:
        self.stages = device.stages
        self.max_steps = device.max_steps
        self.classes = (*device.classes, HOST)
        self._device = device
        self._times = times
        self._graphs = graphs
        self._launches = np.array(operators, dtype=np.int64) * times.launch_ns

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        cost = self._device.price(wave)
        stages = cost.finish_ns.copy()
        stages[:, :, 1:] -= cost.finish_ns[:, :, :-1]
        added = np.stack([self._added(batch, own) for batch, own in zip(wave, stages, strict=True)])
        spent = added.sum(axis=2, keepdims=True)
        return Cost(cost.finish_ns + added.cumsum(axis=2), np.concatenate((cost.busy_ns, spent), axis=2))

    def _added(self, batch: Batch, stages: IntArray) -> IntArray:
        """Return what the host adds to each stage of a batch, which takes `stages` ``[k, stages]`` by itself."""
        eager = not self._graphs.hold(int(batch.new_tokens.sum()))
        launches = self._launches if eager else np.zeros_like(self._launches)
        added: IntArray = np.maximum(launches - stages, 0)
        host = self._times.step_ns + self._times.request_ns * len(batch.requests)
        prompts = bool((batch.new_tokens > np.maximum(batch.samples, 1)).any())
        if self._times.hidden and not prompts:
            added[:, 0] = np.maximum(host + launches[0] - stages[:, 0], 0)
        else:
            added[:, 0] += host
        return added

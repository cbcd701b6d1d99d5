"""What the host of an engine does for a step, and which steps its server has captured as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from foundation.digits import whole_number
from foundation.printable import brief
from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem

if TYPE_CHECKING:
    from orchestrator.pricing.graphs import CapturedGraphs
    from orchestrator.pricing.host import HostTimes
    from orchestrator.schedulers.settings import ServerHost

MOST_US = 1e7
MOST_TOKENS = 2**20


@dataclass(frozen=True)
class HostSettings:
    """Host time by step, request and launch, and captured graphs; what is None is the server's."""

    host_step_us: float | None = setting(
        None,
        "host time of a step, hidden behind the device where a step of decodes is scheduled ahead",
        unit="us",
        least=0,
        most=MOST_US,
        shown_default="4000 for vllm, else 0",
    )
    host_request_us: float | None = setting(
        None,
        "host time of each request in a step",
        unit="us",
        least=0,
        most=MOST_US,
        shown_default="4 for vllm, else 0",
    )
    launch_us: float | None = setting(
        None,
        "host time to launch an operator of a step that is no captured graph",
        unit="us",
        least=0,
        most=MOST_US,
        shown_default="40 for vllm, 70 with --enforce_eager, else 0",
    )
    enforce_eager: bool = setting(False, "capture no graphs: the host launches every operator, as vLLM says it")
    cudagraph_capture_sizes: str | None = setting(
        None,
        "tokens of the steps that are captured as graphs, such as 1,2,4,8; smaller steps are padded to the next",
        shown_default="vLLM's: 1,2,4, by 8 to 256, by 16 to 512 or twice --max_num_seqs; none for other policies",
    )

    def decided(self, host: ServerHost | None) -> HostSettings:
        """Return the same with what the policy's server does where nothing is said."""
        step, request, launch, largest = 0.0, 0.0, 0.0, 0
        if host is not None:
            step, request, largest = host.step_us, host.request_us, host.largest_graph
            launch = host.eager_us if self.enforce_eager else host.launch_us
        sizes = self.cudagraph_capture_sizes
        if sizes is None and largest and not self.enforce_eager:
            from orchestrator.pricing.graphs import vllm_sizes

            sizes = ",".join(map(str, vllm_sizes(largest)))
        return replace(
            self,
            host_step_us=step if self.host_step_us is None else self.host_step_us,
            host_request_us=request if self.host_request_us is None else self.host_request_us,
            launch_us=launch if self.launch_us is None else self.launch_us,
            cudagraph_capture_sizes=sizes,
        )

    def times(self, host: ServerHost | None) -> HostTimes:
        """Return the times of settings that are decided, in whole nanoseconds."""
        from orchestrator.pricing.host import HostTimes

        given = self.host_step_us, self.host_request_us, self.launch_us
        step, request, launch = (round(1000 * (time or 0.0)) for time in given)
        return HostTimes(step, request, launch, hidden=host is not None and host.hidden)

    @property
    def graphs(self) -> CapturedGraphs:
        """The captured graphs of settings that are decided."""
        from orchestrator.pricing.graphs import CapturedGraphs

        return CapturedGraphs(self._sizes() or ())

    def problems(self) -> Iterator[Problem]:
        """Sizes of graphs are numbers that grow, and there are graphs."""
        if self.cudagraph_capture_sizes is None:
            return
        if self.enforce_eager:
            yield Problem("enforce_eager", "conflicts with --cudagraph_capture_sizes", "leave one out")
        elif self._sizes() is None:
            what = f"{brief(self.cudagraph_capture_sizes)} are no numbers of tokens that grow"
            yield Problem("cudagraph_capture_sizes", what, "give whole numbers from 1, ascending, with commas between")

    def _sizes(self) -> tuple[int, ...] | None:
        """Return the tokens of the captured graphs; None where the text says none."""
        if self.cudagraph_capture_sizes is None:
            return ()
        found = [whole_number(part.strip(), 1, MOST_TOKENS) for part in self.cudagraph_capture_sizes.split(",")]
        sizes = [size for size in found if size is not None]
        return tuple(sizes) if sizes == sorted(set(sizes)) and len(sizes) == len(found) else None

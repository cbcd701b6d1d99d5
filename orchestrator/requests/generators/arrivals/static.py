"""`--arrivals static`: equal gaps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@arrival_processes.register("static")
@dataclass(frozen=True)
class Static:
    """Equal gaps."""

    own_rate: ClassVar[bool] = False

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`; every time is rounded by itself, so that the rate is exact."""
        import numpy as np

        from foundation.errors import UserError
        from orchestrator.requests.generators.clocks import block_sizes, nanoseconds
        from orchestrator.workload import LATEST_ARRIVAL_NS

        begin = 0 if place.at_zero else 1
        for size in block_sizes():
            times = nanoseconds(np.arange(begin, begin + size, dtype=np.float64) / place.mean_rate)
            if int(times[0]) >= LATEST_ARRIVAL_NS:
                raise UserError("arrivals are spread over more than 146 years", fix="give a higher --request_rate")
            yield times
            begin += size

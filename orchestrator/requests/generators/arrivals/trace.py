"""`--arrivals trace`: the times of a file of requests, rescaled: to a rate, or by a factor.

With `--dataset` and no other file they are the data set's own times. Where more requests are asked for than the file
has, its times come again, a mean gap after its last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@arrival_processes.register("trace")
@dataclass(frozen=True)
class Trace:
    """The times of a file, rescaled."""

    own_rate: ClassVar[bool] = False
    arrivals_file: Path | None = setting(
        None, "file of requests whose times are taken", implies=True, shown_default="the dataset"
    )
    rate_scale: float | None = setting(
        None,
        "factor of the file's rate: 2 is twice as fast",
        least=1e-6,
        most=1e6,
        implies=True,
        shown_default="1; what comes to --request_rate",
    )

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`; the file's times count from its first."""
        import numpy as np

        from foundation.errors import UserError
        from orchestrator.requests.formats import read_requests
        from orchestrator.requests.generators.clocks import nanoseconds
        from orchestrator.workload import LATEST_ARRIVAL_NS

        path = self.arrivals_file or place.dataset
        assert path is not None, "checked by the client's `problems`"
        found = np.sort(read_requests(path).requests.openings().arrival_ns)
        found = found - found[0]
        span = float(found[-1]) / 1e9
        gap = span / (len(found) - 1) if span else 0.0
        factor = self.rate_scale or 1.0
        if place.rate is not None:
            if not span:
                what = "all arrive at once, which has no rate to scale"
                raise UserError(what, path=path, field="--request_rate", fix="give --arrivals poisson")
            factor = place.rate * gap
        factor *= place.fraction
        begin = 0.0
        while True:
            if (begin + span) / factor * 1e9 > LATEST_ARRIVAL_NS:
                raise UserError("arrivals are spread over more than 146 years", path=path, fix="give a higher rate")
            yield nanoseconds((begin + found.astype(np.float64) / 1e9) / factor)
            begin += span + gap

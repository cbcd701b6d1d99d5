"""Arrival processes: when a client sends its requests; one module each. To add one, write a module here.

A lone client's first request comes at 0. Those of a mixture begin a gap later, or all would send at once at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.streams import Stream

DEFAULT_RATE = 10.0


@dataclass(frozen=True, slots=True)
class ArrivalPlace:
    """What a process is asked for.

    - `rate`: requests (or sessions) a second, finite; None: nobody gave one;
    - `fraction`: the part of what the settings describe that this client sends: 1 of a lone client;
    - `count`: how many requests there will be in all;
    - `at_zero`: whether the first comes at 0;
    - `dataset`: the file whose requests arrive, if they are a file's;
    - `stream`: streams of draws by their purpose.
    """

    rate: float | None
    fraction: float
    count: int
    at_zero: bool
    dataset: Path | None
    stream: Callable[[str], Stream]

    @property
    def mean_rate(self) -> float:
        """The client's requests a second."""
        return (DEFAULT_RATE if self.rate is None else self.rate) * self.fraction


class ArrivalProcess(Protocol):
    """Settings of an arrival process.

    `own_rate`: whether it says itself how many come, so that no request rate is given beside it.
    """

    own_rate: ClassVar[bool]

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """Yield blocks of arrival times (ns, ascending), without end; what is too late is a `UserError`."""


arrival_processes: Registry[type[Any]] = Registry(
    "arrival process", package="orchestrator.requests.generators.arrivals"
)

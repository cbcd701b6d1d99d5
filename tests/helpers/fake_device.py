"""A device of the profiler that computes times instead of measuring them, and counts what it was asked."""

from __future__ import annotations

from foundation.errors import UserError
from profiler.device import Facts, Timing
from profiler.work import Work


def fake_ns(work: Work) -> float:
    """Return a time that tells kernels, shapes and sizes apart, and grows with each of them."""
    numbers = zip((*work.kernel.shape, *work.sizes), (3, 5, 7, 11, 13, 17, 19, 23, 29), strict=False)
    return 1000.0 + 10 * len(work.kernel.name) + sum(number * weight for number, weight in numbers)


class FakeDevice:
    """See the module's docstring. `stop_after`: so many timings, then an interrupt; `fails_at`: a kernel's name."""

    def __init__(
        self, stop_after: int | None = None, *, busy: str = "", driver: str = "1.0", fails_at: str = ""
    ) -> None:
        self.asked: list[Work] = []
        self.warm_ups = 0
        self._stop_after, self._busy, self._driver, self._fails_at = stop_after, busy, driver, fails_at

    def identity(self) -> Facts:
        return {"device": "Fake 9000", "driver": self._driver}

    def clocks(self) -> Facts:
        return {"clocks.sm": f"{2000 + self.warm_ups} MHz"}

    def busy(self) -> str:
        return self._busy

    def memory_bytes(self) -> int:
        return 2**22

    def warm_up(self) -> float:
        self.warm_ups += 1
        return 1.0

    def time(self, work: Work, *, names: bool) -> Timing:
        if self._stop_after is not None and len(self.asked) >= self._stop_after:
            raise KeyboardInterrupt
        if work.kernel.name == self._fails_at:
            raise UserError(f"{work} does not fit", fix="give less")
        self.asked.append(work)
        return Timing(fake_ns(work), (f"kernel_of_{work.kernel.name}",) if names else ())

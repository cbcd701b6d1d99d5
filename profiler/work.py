"""One thing to time: a kernel, the shape it has in the model, and the sizes of a batch."""

from __future__ import annotations

from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is computed, whatever the batch: the `name` of a module's choice in `profiler.kernels`, and its `shape`.

    Operators with equal kernels are timed once.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel at the `sizes` of one batch: tokens or sequences, or the columns of attention's or experts' tables."""

    kernel: Kernel
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        """Return it as messages have it: ``linear 4096x6144x0 at 16``."""
        return f"{self.kernel.name} {'x'.join(map(str, self.kernel.shape))} at {','.join(map(str, self.sizes))}"

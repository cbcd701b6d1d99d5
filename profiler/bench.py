"""What kernels are built with: PyTorch, a device, a width of numbers, and memory that is used again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foundation.registry import Registry

Launch = Callable[[], Any]
"""Computes once; everything that it reads is in the device's memory beforehand."""
Builder = Callable[["Bench", tuple[int, ...], tuple[int, ...]], Launch]
"""What a kernel's module registers: bench, shape of the kernel, sizes of the batch -> what computes it."""
kernels: Registry[Builder] = Registry("kernel", package="profiler.kernels")

_SPREAD = 64
"""Random weights are divided by this: sums over thousands of them stay small in 16 bits."""


class Bench:
    """One device of PyTorch.

    `torch`: the module, which whoever makes a bench has imported; `device`: as PyTorch names it; `dtype`: of weights,
    activations and the KV cache. Random numbers come from a fixed seed: power, and so clocks, depend on what is
    computed with.
    """

    def __init__(self, torch: Any, device: str, dtype: Any) -> None:
        self.torch, self.device, self.dtype = torch, device, dtype
        self._generator = torch.Generator(device=device).manual_seed(0)
        self._kept: dict[tuple[object, ...], Any] = {}

    def random(self, *shape: int) -> Any:
        """Return new random numbers of `shape`."""
        made = self.torch.randn(shape, dtype=self.dtype, device=self.device, generator=self._generator)
        return made.div_(_SPREAD)

    def weight(self, *shape: int, name: str = "") -> Any:
        """Return random numbers of `shape`, the same ones for the same `name` until `forget`."""
        return self.kept((name, *shape), lambda: self.random(*shape))

    def kept(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Return what `make` has made for `key` since the last `forget`."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def whole(self, values: Any) -> Any:
        """Return whole numbers (an index) on the device."""
        return self.torch.tensor(values, dtype=self.torch.int64, device=self.device)

    def forget(self) -> None:
        """Drop what is kept: another kernel follows."""
        self._kept.clear()

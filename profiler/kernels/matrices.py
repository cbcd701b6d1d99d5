"""Matrix products of the tokens of a batch with weights."""

from __future__ import annotations

from profiler.bench import Bench, Launch, kernels


@kernels.register("linear")
def linear(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """`shape`: inputs, outputs, and whether (1) there is a bias; `sizes`: rows."""
    inputs, outputs, biased = shape
    weight = bench.weight(outputs, inputs)
    bias = bench.weight(outputs, name="bias") if biased else None
    rows = bench.random(sizes[0], inputs)
    product = bench.torch.nn.functional.linear
    return lambda: product(rows, weight, bias)

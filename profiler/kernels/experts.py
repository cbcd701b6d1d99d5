"""Routed experts of one rank that has all of them: router, choice, matrices, weighted sum."""

from __future__ import annotations

from typing import Any

from profiler.bench import Bench, Launch, kernels


@kernels.register("experts")
def experts(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Experts with a gate. `shape`: hidden, width, experts, a token's, router's outputs; `sizes`: tokens, busy experts.

    The router chooses and is not obeyed: copies of tokens go evenly to as many experts as are to be busy.
    """
    hidden, width, count, per_token, outputs = shape
    tokens, active = sizes
    torch = bench.torch
    rows = bench.random(tokens, hidden)
    router = bench.weight(outputs, hidden, name="router")
    gate_up = bench.weight(count, 2 * width, hidden, name="gate_up")
    down = bench.weight(count, hidden, width, name="down")
    # Token t's copies go to experts t*k, t*k+1, ... of the busy ones, which are all different.
    chosen = bench.whole([copy % active for copy in range(tokens * per_token)])
    ends = [len(range(expert, tokens * per_token, active)) for expert in range(active)]
    bounds = [sum(ends[:expert]) for expert in range(active + 1)]

    def launch() -> Any:
        shares = (rows @ router.t()).float().softmax(dim=-1).topk(per_token, dim=-1).values
        order = chosen.argsort(stable=True)
        source = order.div(per_token, rounding_mode="floor")
        copies = rows[source]
        made = torch.empty_like(copies)
        for expert in range(active):
            own = slice(bounds[expert], bounds[expert + 1])
            gate, up = (copies[own] @ gate_up[expert].t()).chunk(2, dim=-1)
            torch.mm(torch.nn.functional.silu(gate).mul_(up), down[expert].t(), out=made[own])
        made.mul_(shares.view(-1)[order].to(made.dtype)[:, None])
        return torch.zeros_like(rows).index_add_(0, source, made)

    return launch

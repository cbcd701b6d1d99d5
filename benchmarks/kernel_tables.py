"""Compare the roofline with public kernel tables, as shipped and leave-one-out.

    pip download --no-deps aiconfigurator-core==0.12.0 && python -m zipfile -e aiconfigurator_core-*.whl unpacked
    python -m benchmarks.kernel_tables unpacked

Reads what vLLM's kernels took in ``aiconfigurator_core/systems/data`` (NVIDIA, Apache-2.0; parquet: pandas and pyarrow
are needed). For each class of operators of each device it prints the mean absolute and the mean logarithmic error

- as shipped: with `configs/device_classes` (fitted, among others, to this device);
- left out: with the least error on the other devices of its class, or where there are none, of those that run the
  same attention kernels: what a device is predicted like that nobody measured.

Matrices that the last-level cache holds and whose time is memory's are left out: the tables repeat a kernel on the same
weights, a model of many layers never finds them there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.commands import run_command
from foundation.errors import UserError
from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.device_classes import EFFICIENCY_CLASSES, Efficiency
from trace_gen.hardware import Hardware, load_hardware
from trace_gen.perf_model import AttentionPart
from trace_gen.perf_models.roofline.attention import AttentionRoofline

FloatArray = NDArray[np.float64]
DEVICES = {
    "a100_sxm": "A100-80G",
    "h100_sxm": "H100",
    "h200_sxm": "H200",
    "b200_sxm": "B200",
    "gb200": "GB200",
    "l40s": "L40S",
    "rtx_pro_6000_server": "RTXPRO6000",
}
HEAD = 128
SPREADS = (0.5, 0.2, 0.08)
"""How far the search looks from the best so far (standard deviation of the logarithm), round after round."""


@dataclass(frozen=True)
class Measured:
    """Rows of one class of operators on one device: what they took (ns), and what they take at an efficiency."""

    hardware: Hardware
    kind: str
    taken: FloatArray
    predict: Callable[[Efficiency], FloatArray]

    def errors(self, efficiency: Efficiency) -> FloatArray:
        """Return the logarithmic error of every row."""
        return np.asarray(np.log(self.predict(efficiency) / self.taken))


def fitted(parts: Sequence[Measured], tries: int) -> Efficiency:
    """Return the efficiency with the least mean absolute error over `parts`, each with the same weight."""
    rng, best = np.random.default_rng(0), EFFICIENCY_CLASSES[parts[0].kind]
    if "ungrouped" in parts[0].kind:
        best = replace(best, serial_ns=5.0)

    def error(efficiency: Efficiency) -> float:
        return float(np.mean([np.abs(part.errors(efficiency)).mean() for part in parts]))

    least = error(best)
    for spread in SPREADS:
        for _ in range(tries):
            values = np.exp(rng.normal(0, spread, 5))
            tried = Efficiency(
                min(1.2, best.compute * values[0]),
                min(1.2, best.memory * values[1]),
                best.overhead_ns * values[2],
                best.tile_ns * values[3],
                best.serial_ns * values[4],
            )
            if (found := error(tried)) < least:
                best, least = tried, found
    return best


def products(folder: Path, system: str, hardware: Hardware, kind: str, sample: int) -> Measured | None:
    """Return matrix products of 16 bits (``gemm``) or FP8 (``gemm_8bit``)."""
    dtype, width = ("bfloat16", 2) if kind == "gemm" else ("fp8", 1)
    peak = (
        hardware.peak_flops["bf16" if kind == "gemm" else "fp8"]
        if kind == "gemm" or "fp8" in hardware.peak_flops
        else 0
    )
    table = _table(folder, system, "gemm", "gemm_perf")
    table = table[(table.gemm_dtype == dtype) & (table.n >= 512) & (table.k >= 512) & (table.m <= 8192)]
    table = table[(table.k <= 28672) & (table.n * table.k <= 6e8)]
    if table.empty or not peak:
        return None
    table = table.groupby(["m", "n", "k"], as_index=False).latency.median()
    m, n, k = (table[name].to_numpy(dtype=float) for name in "mnk")
    compute, memory = (
        2 * m * n * k / peak * 1e9,
        (width * (n * k + m * k) + 2 * m * n) / hardware.memory_bandwidth * 1e9,
    )
    cold = (width * n * k > hardware.cache_bytes) | (compute > 1.2 * memory) | (memory < 1500)
    chosen = np.flatnonzero(cold)
    chosen = np.random.default_rng(0).permutation(chosen)[:sample]
    taken = table.latency.to_numpy()[chosen] * 1e6
    compute, memory = compute[chosen], memory[chosen]
    return Measured(
        hardware, kind, taken, lambda e: np.asarray(e.overhead_ns + np.hypot(compute / e.compute, memory / e.memory))
    )


def experts(folder: Path, system: str, hardware: Hardware, sample: int) -> Measured | None:
    """Return fused mixtures of experts in 16 bits, evenly loaded: two grouped products, activation and sum."""
    table = _table(folder, system, "moe", "moe_perf")
    table = table[(table.moe_dtype == "bfloat16") & (table.moe_ep_size == 1) & (table.distribution == "balanced")]
    table = table[table.num_tokens <= 8192]
    if table.empty:
        return None
    table = table.sample(min(len(table), sample), random_state=0)
    names = ("num_tokens", "topk", "num_experts", "hidden_size", "inter_size")
    tokens, chosen, count, hidden, inner = (table[name].to_numpy(dtype=float) for name in names)
    inner, copies = inner / table.moe_tp_size.to_numpy(), tokens * chosen
    active, bandwidth = np.minimum(count, copies), hardware.memory_bandwidth / 1e9
    work = [2 * copies * hidden * wide / hardware.peak_flops["bf16"] * 1e9 for wide in (2 * inner, inner)]
    moved = [2 * (active * hidden * wide + copies * (hidden + wide)) / bandwidth for wide in (2 * inner, inner)]
    plain = hardware.efficiencies["elementwise"]
    between = 2 * (3 * copies * inner + (copies + tokens) * hidden) / bandwidth / plain.memory / hardware.cache_speedup

    def predict(e: Efficiency) -> FloatArray:
        busy = sum(np.hypot(flops / e.compute, memory / e.memory) for flops, memory in zip(work, moved, strict=True))
        return np.asarray(busy + 2 * e.overhead_ns + between + 2 * plain.overhead_ns)

    return Measured(hardware, "grouped_gemm", table.latency.to_numpy() * 1e6, predict)


def attention(folder: Path, system: str, hardware: Hardware, kind: str, sample: int) -> Measured | None:
    """Return attention over like requests in 16 bits, heads of 128: prompts, or decodes with or without groups."""
    prompts = kind == "attention_prefill"
    table = _table(folder, system, "attention", f"{'context' if prompts else 'generation'}_attention_perf")
    table = table[(table.attn_dtype == "bfloat16") & (table.kv_cache_dtype == "bfloat16") & (table.head_dim == HEAD)]
    table = table[table.window_size == 0] if "window_size" in table else table
    table = table[
        table.kernel_source.isin(("vllm_flash_attn", f"vllm_flash_attn_{hardware.attention_kernels}"))
        | table.kernel_source.str.contains("trtllm")
    ]
    if prompts:
        table = table[(table.isl >= 16) & (table.batch_size * table.isl <= 32768) & (table.num_heads >= 4)]
        tokens = table.isl
    else:
        ungrouped = table.num_heads == table.num_key_value_heads
        table = table[
            (ungrouped == kind.endswith("ungrouped")) & (table.step.between(31, 16384)) & (table.batch_size <= 256)
        ]
        memory = table.batch_size * table.step * table.num_key_value_heads * 4 * HEAD
        table = table[(memory > hardware.cache_bytes) | (memory / hardware.memory_bandwidth < 4e-6)]
        tokens = table.step
    table = table.assign(tokens=tokens.loc[table.index])
    if table.empty:
        return None
    table = table.sample(min(len(table), sample), random_state=0)
    columns = ("batch_size", "tokens", "num_heads", "num_key_value_heads")
    rows = zip(*(table[name].astype(int) for name in columns), strict=True)
    parts = [_part(count, tokens, heads, kv_heads, prompts) for count, tokens, heads, kv_heads in rows]

    def predict(e: Efficiency) -> FloatArray:
        device = replace(hardware, efficiencies={**hardware.efficiencies, kind: e})
        roofline = AttentionRoofline(device, device.peak_flops["bf16"], device.memory_bandwidth)
        return np.array([float(roofline.batch_ns(part)[0]) for part in parts])

    return Measured(hardware, kind, table.latency.to_numpy() * 1e6, predict)


def _part(count: int, tokens: int, heads: int, kv_heads: int, prompts: bool) -> AttentionPart:
    kv = 4 * HEAD * kv_heads
    shape = AttentionShape(heads, kv_heads, 4 * HEAD * heads, kv, 2 * HEAD * heads, 2 * HEAD * heads, kv)
    new, context = (tokens, 0) if prompts else (1, tokens)
    ids, new_tokens, context_tokens, samples = (np.full(count, value, dtype=np.int64) for value in (0, new, context, 1))
    batch = BatchShape(ids, new_tokens, context_tokens, samples=samples)
    return AttentionPart(np.zeros(1, dtype=np.int64), False, shape, batch, shape.work(batch))


def _table(folder: Path, system: str, operator: str, file: str) -> Any:
    try:
        import pandas
        import pyarrow  # noqa: F401  (reads parquet)
    except ImportError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install pandas pyarrow") from None

    paths = sorted((folder / "aiconfigurator_core/systems/data" / system / operator / "vllm").glob(f"*/{file}.parquet"))
    if not paths:
        raise UserError(f"no {operator}/vllm/*/{file}.parquet of {system}", path=folder, fix="unpack the wheel there")
    return pandas.read_parquet(paths[-1])


def measured(folder: Path, system: str, sample: int) -> list[Measured]:
    """Return all classes of operators of a system."""
    hardware = load_hardware(DEVICES[system])
    found = [products(folder, system, hardware, kind, sample) for kind in ("gemm", "gemm_8bit")]
    found.append(experts(folder, system, hardware, sample))
    for kind in ("attention_prefill", "attention_decode", "attention_decode_ungrouped"):
        found.append(attention(folder, system, hardware, kind, sample // 8))
    return [part for part in found if part is not None]


def _others(part: Measured, parts: Sequence[Measured]) -> list[Measured]:
    """Return those of the same kind that a device would be predicted from, were it not there."""
    own = part.hardware
    others = [one for one in parts if one.kind == part.kind and one.hardware.name != own.name]
    alike = [one for one in others if one.hardware.device_class == own.device_class]
    return alike or [one for one in others if one.hardware.attention_kernels == own.attention_kernels]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("unpacked", type=Path, help="folder that the wheel was unpacked into")
    parser.add_argument("--sample", type=int, default=2000, help="rows a class and device, an eighth of attention's")
    parser.add_argument("--tries", type=int, default=60, help="efficiencies tried a round of the search")
    parser.add_argument("--fit", action="store_true", help="print the efficiencies of each device by itself as well")
    wanted = parser.parse_args()
    parts = [part for system in DEVICES for part in measured(wanted.unpacked, system, wanted.sample)]
    print(f"{'operators':28}{'device':12}{'rows':>6}{'shipped':>9}{'bias':>8}{'left out':>10}{'bias':>8}  from")
    for part in sorted(parts, key=lambda one: one.kind):
        shipped, others = part.errors(part.hardware.efficiencies[part.kind]), _others(part, parts)
        line = f"{part.kind:28}{part.hardware.name:12}{len(part.taken):6}"
        line += f"{np.abs(shipped).mean():9.1%}{shipped.mean():8.1%}"
        if others:
            left = part.errors(fitted(others, wanted.tries))
            line += f"{np.abs(left).mean():10.1%}{left.mean():8.1%}  {', '.join(one.hardware.name for one in others)}"
        print(line, flush=True)
        if wanted.fit:
            print(f"    {fitted([part], wanted.tries)}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))

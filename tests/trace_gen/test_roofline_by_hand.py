"""The roofline against its formulas in docs/performance_models.md, written out plainly, one operator at a time.

Nothing is shared with the model but a device's figures: the waves of attention are worked through one by one here.
"""

from __future__ import annotations

import json
from math import ceil, hypot
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import LLAMA, MIXTRAL, QWEN, batch, batches, make_generator, model, rows_named

from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
from trace_gen.trace import Trace

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)
DEVICES = ("RTX4090", "A100-80G", "H100", "TPU-v5e")
CLASSES = {"embedding": "embedding", "sampler": "sampler"}
CLASSES |= dict.fromkeys(("layernorm", "final_layernorm", "qk_norm", "rotary_emb", "act_fn"), "elementwise")
CLASSES |= dict.fromkeys(("expert_gate_up_proj", "expert_down_proj"), "grouped_gemm")
CLASSES |= dict.fromkeys(("expert_act_fn", "expert_sum"), "elementwise")


class Device:
    """The figures of a hardware file, read here on their own."""

    def __init__(self, name: str) -> None:
        content = json.loads((HARDWARE_FOLDER / f"{name}.json").read_text())
        peaks = content["peak_tflops"]
        self.peak = peaks.get("bf16", peaks.get("fp16")) * 1e12
        self.bandwidth = content["memory_bandwidth_gb_s"] * 1e9
        self.units = content["compute_units"]
        self.cache = content["cache_mib"] * 2**20
        self.cache_speedup = content.get("cache_speedup", 3.5)
        hardware = load_hardware(name)
        self.efficiency, self.apart = hardware.efficiencies, hardware.attention_kernels == "fa3"

    def plain(self, name: str, flops: float, moved: float) -> float:
        kind = CLASSES.get(name, "gemm")
        part = self.efficiency[kind]
        if kind in ("elementwise", "embedding"):
            cached = min(moved, 0.7 * self.cache)
            moved = moved - cached + cached / self.cache_speedup
        compute, memory = flops / (self.peak * part.compute), moved / (self.bandwidth * part.memory)
        return part.overhead_ns + 1e9 * hypot(compute, memory)

    def chunks(self, requests: list[tuple[int, int]], query: int, kv: int, width: int) -> float:
        """One kernel over chunks: tiles of 64 queries of a head, in whole waves over the units."""
        part = self.efficiency["attention_prefill"]
        heads = max(1.0, query / width)
        tiles = []
        for new, context in requests:
            flops = 4 * query * sum(context + i for i in range(1, new + 1))
            tiles.append((flops * 64 / new / heads, ceil(new / 64) * heads))
        unit_rate = self.peak * part.compute / self.units
        busiest = sum(work * count for work, count in tiles) / self.units
        for least, _ in tiles:
            as_large = sum(count for work, count in tiles if work >= least)
            busiest = max(busiest, ceil(as_large / self.units) * least)
        moved = sum(traffic(new, context, query, kv) for new, context in requests)
        memory = moved / (self.bandwidth * part.memory)
        all_tiles = sum(count for _, count in tiles)
        return part.overhead_ns + 1e9 * hypot(busiest / unit_rate, memory) + part.tile_ns * all_tiles / self.units

    def decodes(self, requests: list[tuple[int, int]], query: int, kv: int, width: int) -> float:
        part = self.efficiency["attention_decode"]
        moved = sum(traffic(new, context, query, kv) for new, context in requests)
        tiles = part.tile_ns * len(requests) * (kv / width) / self.units
        return part.overhead_ns + 1e9 * moved / (self.bandwidth * part.memory) + tiles

    def attention(self, requests: list[tuple[int, int]], query: int, kv: int, width: int) -> float:
        prompts = [request for request in requests if request[0] > 1]
        alone = [request for request in requests if request[0] == 1]
        if self.apart and prompts and alone:
            beside = self.decodes(alone, query, kv, width) - self.efficiency["attention_decode"].overhead_ns
            return self.chunks(prompts, query, kv, width) + beside
        chunks = self.chunks(requests, query, kv, width)
        if prompts:
            return chunks
        return min(chunks, self.decodes(requests, query, kv, width))


def traffic(new: int, context: int, query: int, kv: int) -> int:
    """Bytes that attention of a request moves, 16 bits a number."""
    return 2 * 2 * kv * (context + new + new) + 2 * 2 * query * new


def requests_of(shape: BatchShape) -> list[tuple[int, int]]:
    return list(zip(shape.new_tokens.tolist(), shape.context_tokens.tolist(), strict=True))


def compare(trace: Trace, shape: BatchShape, device: Device, query: int, kv: int, width: int) -> int:
    """Compare every distinct row with the formulas and return how many there were."""
    requests = dict(zip(shape.request_ids.tolist(), requests_of(shape), strict=True))
    seen = set()
    for row in np.flatnonzero((trace.layer <= 0) & (trace.latency_ns[0] > 0)).tolist():
        name, found = trace.name(row), int(trace.latency_ns[0, row])
        if name == "attention":
            own = int(trace.request[row])
            chosen = list(requests.values()) if own < 0 else [requests[own]]
            expected = device.attention(chosen, query, kv, width)
        else:
            expected = device.plain(name, float(trace.flops[0, row]), float(trace.mem_bytes[0, row]))
        assert found == pytest.approx(expected, abs=1, rel=1e-9), name
        seen.add((name, int(trace.request[row])))
    return len(seen)


@SETTINGS
@given(
    shape=batches,
    name=st.sampled_from([LLAMA, MIXTRAL, QWEN]),
    hardware=st.sampled_from(DEVICES),
    tensor=st.sampled_from([1, 2, 4]),
    placement=st.sampled_from(["heads", "requests"]),
)
def test_every_operator_takes_what_its_formula_says(
    shape: BatchShape, name: str, hardware: str, tensor: int, placement: str
) -> None:
    generator = make_generator(model(name), tensor, hardware=hardware, attention_placement=placement)
    heads, kv_heads, width = {LLAMA: (32, 8, 128), MIXTRAL: (32, 8, 128), QWEN: (32, 4, 128)}[name]
    ranks = 1 if placement == "requests" else tensor
    compared = compare(
        generator.generate([shape]), shape, Device(hardware), heads * width // ranks, kv_heads * width // ranks, width
    )
    assert compared >= 10


def test_decodes_alone_take_the_cheaper_of_both_kernels() -> None:
    """Many short contexts are cheaper as tiles, long ones by memory: both are reached, and each is the trace's time."""
    device, generator = Device("RTX4090"), make_generator(model(LLAMA), hardware="RTX4090")
    reached = set()
    for count, context in ((1, 1), (1, 4000), (3, 5000), (256, 1), (512, 2), (40, 700)):
        requests = [(1, context)] * count
        chunks, decodes = device.chunks(requests, 4096, 1024, 128), device.decodes(requests, 4096, 1024, 128)
        reached.add(chunks < decodes)
        trace = generator.generate([batch([1] * count, [context] * count)])
        found = int(trace.latency_ns[0, rows_named(trace, "attention")[0]])
        assert found == pytest.approx(min(chunks, decodes), abs=1)
    assert reached == {True, False}


def test_a_device_without_figures_of_its_own_takes_the_defaults(tmp_path: Path) -> None:
    content = json.loads((HARDWARE_FOLDER / "RTX4090.json").read_text())
    content.pop("efficiency"), content.pop("cache_speedup", None), content.pop("class")
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(content))
    bare = load_hardware(str(path))
    stated = {
        name: (part.compute, part.memory, part.overhead_ns, part.tile_ns)
        for name, part in bare.efficiencies.items()
        if not part.serial_ns
    }
    assert stated == {
        "gemm": (0.88, 0.94, 5200.0, 0.0),
        "gemm_8bit": (0.88, 0.94, 5200.0, 0.0),
        "grouped_gemm": (0.88, 0.94, 5200.0, 0.0),
        "attention_prefill": (0.70, 0.96, 6150.0, 5100.0),
        "attention_decode": (1.0, 0.91, 12400.0, 2300.0),
        "attention_decode_ungrouped": (1.0, 0.91, 12400.0, 2300.0),
        "elementwise": (1.0, 0.77, 2250.0, 0.0),
        "embedding": (1.0, 1.34, 3400.0, 0.0),
        "sampler": (1.0, 0.37, 17500.0, 0.0),
    }
    assert bare.cache_speedup == 3.5

"""PyTorch on this CPU: every kernel runs and names what it calls, and attention and experts compute what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from profiler.bench import Bench, kernels
from profiler.collectives import COLLECTIVES, ranks_up_to, sizes_up_to, write_fabric
from profiler.torch_device import TorchDevice, is_steady
from profiler.work import Kernel, Work

WORKS = [
    Work(Kernel("linear", (8, 12, 1)), (3,)),
    Work(Kernel("embedding", (32, 8, 0)), (3,)),
    Work(Kernel("embedding", (32, 8, 16)), (20,)),
    Work(Kernel("sampler", (32,)), (3,)),
    Work(Kernel("rms_norm", (8,)), (3,)),
    Work(Kernel("layer_norm", (8,)), (3,)),
    Work(Kernel("head_norm", (4, 2, 8)), (3,)),
    Work(Kernel("gated_activation", (8,)), (3,)),
    Work(Kernel("activation", (8,)), (3,)),
    Work(Kernel("rotary", (4, 2, 8, 8)), (3,)),
    Work(Kernel("rotary", (4, 2, 8, 4)), (3,)),
    Work(Kernel("scale", (8,)), (3,)),
    Work(Kernel("softcap", (8,)), (3,)),
    Work(Kernel("add_positions", (8,)), (3,)),
    Work(Kernel("attention", (4, 2, 8)), (5, 7, 2, 6)),
    Work(Kernel("attention", (4, 4, 8)), (5, 0, 0, 0)),
    Work(Kernel("attention", (4, 1, 8)), (0, 0, 3, 9)),
    Work(Kernel("experts", (8, 4, 6, 2, 6)), (5, 3)),
]


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    module = pytest.importorskip("torch", reason="PyTorch is not installed")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


def recording(bench: Bench) -> tuple[Bench, list[Any]]:
    """Return the bench, and a list of all that it makes."""
    made: list[Any] = []
    make = bench.random

    def random(*shape: int) -> Any:
        made.append(make(*shape))
        return made[-1]

    bench.random = random
    return bench, made


def test_steady_is_three_like_windows() -> None:
    assert not is_steady([0.0, 100.0, 100.0])
    assert is_steady([0.0, 50.0, 100.0, 100.0, 99.5])
    assert not is_steady([0.0, 100.0, 100.0, 98.0])


def test_every_kernel_is_among_the_works() -> None:
    assert {work.kernel.name for work in WORKS} == set(kernels)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_kernels_are_timed_and_named(torch: Any, dtype: str) -> None:
    device = TorchDevice("cpu", dtype)
    assert device.warm_up() > 0 and not device.busy() and device.identity()["dtype"] == dtype
    for work in WORKS:
        timing = device.time(work, names=True)
        assert timing.ns >= 1 and any(name.startswith("aten::") for name in timing.kernels), work
    assert device.time(WORKS[0], names=False).kernels == ()


def test_no_gpu_is_one_line(torch: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"--device: PyTorch finds no GPU here; .*--device cpu"):
        TorchDevice("cuda:0", "bf16")


def test_memory_that_runs_out_is_one_line(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    device = TorchDevice("cpu", "fp32")
    monkeypatch.setattr(Bench, "random", full)
    with pytest.raises(UserError, match="linear 8x12x1 at 3 does not fit into the memory of cpu; give a smaller"):
        device.time(WORKS[0], names=False)


@pytest.mark.parametrize(("new", "past"), [(5, 0), (5, 7), (1, 9)])
def test_a_chunk_attends_to_what_is_before_it(torch: Any, new: int, past: int) -> None:
    """By hand: each token attends to the cache, and to those before it in its chunk."""
    bench, made = recording(Bench(torch, "cpu", torch.float32))
    requests = 1 if new > 1 else 2
    sizes = (new, past, 0, 0) if new > 1 else (0, 0, requests, past)
    (found,) = kernels.get("attention")(bench, (4, 2, 8), sizes)()
    query, cache = made[0], made[2].view(2, requests, 2, past + new, 8)
    keys, values = (one.repeat_interleave(2, dim=1) for one in cache)
    assert torch.equal(cache[:, :, :, past:], made[1]), "new keys and values are in the cache"
    scores = query @ keys.transpose(-1, -2) / 8**0.5
    ahead = torch.arange(past + new)[None, :] > torch.arange(new)[:, None] + past
    expected = scores.masked_fill(ahead, float("-inf")).softmax(-1) @ values
    torch.testing.assert_close(found, expected)


def test_experts_compute_each_copy_by_its_expert(torch: Any) -> None:
    bench, rows = recording(Bench(torch, "cpu", torch.float32))
    hidden, width, count, per_token, tokens, active = 8, 4, 6, 2, 5, 3
    found = kernels.get("experts")(bench, (hidden, width, count, per_token, count), (tokens, active))()
    router, gate_up, down = (
        bench.weight(*shape, name=name)
        for name, shape in (
            ("router", (count, hidden)),
            ("gate_up", (count, 2 * width, hidden)),
            ("down", (count, hidden, width)),
        )
    )
    shares = (rows[0] @ router.t()).softmax(-1).topk(per_token).values
    expected = torch.zeros_like(rows[0])
    for copy in range(tokens * per_token):
        token, expert = copy // per_token, copy % active
        gate, up = (gate_up[expert] @ rows[0][token]).chunk(2)
        share = shares[token, copy % per_token]
        expected[token] += share * (down[expert] @ (torch.nn.functional.silu(gate) * up))
    torch.testing.assert_close(found, expected)


def test_sizes_of_collectives() -> None:
    assert sizes_up_to(4097) == [1024, 2048, 4096]
    assert ranks_up_to(2) == [2] and ranks_up_to(6) == [2, 4, 6] and ranks_up_to(8) == [2, 4, 8]


def test_collectives_become_a_fabric(torch: Any, tmp_path: Path) -> None:
    from orchestrator.fabrics.reading import read_fabric

    path = write_fabric(tmp_path, "cpu", "a test", [2], [1024, 4096])
    fabric = read_fabric(path)
    assert set(fabric.curves) == set(COLLECTIVES) and set(fabric.curves["all_reduce"]) == {2}
    assert all(ns >= 1 for curve in json.loads(path.read_text())["curves"] for _, ns in curve["points"])


def test_collectives_that_cannot_be_timed_are_one_line(torch: Any, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        UserError, match=r"--collectives: collectives over 2 ranks cannot be timed: .*fewer ranks"
    ) as told:
        write_fabric(tmp_path, "cuda", "a test", [2], [1024])
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())

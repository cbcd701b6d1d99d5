"""What SGLang's server decides by itself for a device: the size of chunks, and the memory left to weights and KV cache.

Read in SGLang 0.5.5 (`ServerArgs._handle_gpu_memory_settings`, server_args.py), for NVIDIA's and AMD's devices. A share
of the device's memory is for weights and KV cache: all but a reserve in MiB, which is 512 for metadata, 1.5 for every
token of a chunk, 2 for every request of the largest CUDA graph, and 128 for every rank; 10 GiB at least on devices of
more than 60 GiB.
"""

from __future__ import annotations

from foundation.records import dataclass

MIB = 2**20
_LEAST_CHUNK = 2048
_LARGE_MIB, _LARGE_RESERVE_MIB = 60 * 1024, 10 * 1024


@dataclass(frozen=True, slots=True)
class _Class:
    """Devices below so many MiB: the tokens of a chunk, and the requests of the largest CUDA graph below TP 4, else."""

    below_mib: float
    chunk: int
    graph: int
    wide_graph: int


_CLASSES = (
    _Class(20 * 1024, 2048, 8, 8),
    _Class(35 * 1024, 2048, 24, 80),
    _Class(60 * 1024, 4096, 32, 160),
    _Class(160 * 1024, 8192, 256, 512),
    _Class(float("inf"), 16384, 512, 512),
)


def chunked_prefill_size(memory_bytes: int) -> int:
    """Return the tokens of a chunk on a device with so much memory."""
    return _class_of(memory_bytes).chunk


def reserved_mib(memory_bytes: int, chunk: int, max_prefill_tokens: int, tensor: int, stages: int) -> float:
    """Return the MiB of a device that neither weights nor KV cache get; `chunk` below 1: prompts are not cut."""
    device = _class_of(memory_bytes)
    graph = device.graph if tensor < 4 else device.wide_graph
    tokens = max(chunk if chunk > 0 else max_prefill_tokens, _LEAST_CHUNK)
    reserve = 512 + tokens * 1.5 + graph * 2 + tensor * stages / 8 * 1024
    return max(reserve, _LARGE_RESERVE_MIB) if memory_bytes / MIB > _LARGE_MIB else reserve


def mem_fraction_static(memory_bytes: int, chunk: int, max_prefill_tokens: int, tensor: int, stages: int) -> float:
    """Return the share of a device's memory for weights and KV cache; none where the reserve takes all of it."""
    memory = memory_bytes / MIB
    reserve = reserved_mib(memory_bytes, chunk, max_prefill_tokens, tensor, stages)
    return max(0.0, round((memory - reserve) / memory, 3))


def _class_of(memory_bytes: int) -> _Class:
    return next(device for device in _CLASSES if memory_bytes / MIB < device.below_mib)

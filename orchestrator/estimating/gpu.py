"""The GPU that is here, through PyTorch, which is loaded when it is asked for: its name, and the time of a prompt.

The prompt pass is that of the model's operators (`trace_gen.model_operators`) with random weights: its matrix products,
attention and element-wise operators, one after another. The weights of a kind of layer are made once and used for all
layers of the kind; kernels are PyTorch's own, and windows of attention are not cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.model_operators import model_operators
from trace_gen.operators import Operator, Rows
from trace_gen.precision import Precision
from trace_gen.trace import OperatorClass

WARM_UP, REPEATS = 3, 5
BYTES = 2
"""Of a number: measurements are in 16 bits."""
Step = Callable[[Any], Any]


def present_gpu() -> str | None:
    """Return the name of the GPU that PyTorch works on, None where there is no PyTorch or no GPU."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


class PromptPass:
    """The prompt pass of a model on `device` (PyTorch's name of it): prompt tokens -> seconds.

    Models of dense layers with grouped attention alone, in 16 bits; others are a `UserError`.
    """

    def __init__(self, architecture: ModelArchitecture, bits: int = 16, device: str = "cuda") -> None:
        import torch

        plain = all(isinstance(layer.attention, GroupedAttention) for layer in architecture.layer_kinds)
        if bits != 16 or not plain or architecture.mixtures or architecture.quantization is not None:
            raise UserError(
                f"{architecture.name}: only dense models with grouped attention, in 16 bits, are timed on a GPU",
                fix="give --perf_model roofline, or a --profile_dir",
            )
        self._memory: Any = torch.zeros(0)
        self._torch, self._device = torch, device
        self._dtype = torch.float16 if device.startswith("cuda") else torch.float32
        operators = model_operators(architecture, precision=Precision())
        blocks = dict(zip(architecture.layer_kinds, operators.blocks, strict=True))
        with self._holding():
            steps = {layer: self._steps(block, layer.attention) for layer, block in blocks.items()}
            head, tail = self._steps(operators.head), self._steps(operators.tail)
        self._all = [*head, *(step for layer in architecture.layers for step in steps[layer]), *tail]

    def __call__(self, tokens: int) -> float:
        """Return the median seconds of a prompt of so many tokens."""
        with self._holding():
            spent = [self._once(tokens) for _ in range(WARM_UP + REPEATS)]
        return median(spent[WARM_UP:])

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Let PyTorch keep nothing for training; what does not fit into the GPU's memory is a `UserError`."""
        try:
            with self._torch.inference_mode():
                yield
        except self._torch.cuda.OutOfMemoryError as error:
            raise UserError(
                "the prompt does not fit into the GPU's memory", fix="give shorter --tokens, or --perf_model roofline"
            ) from error

    def _once(self, tokens: int) -> float:
        self._wait()
        begun = perf_counter()
        for step in self._all:
            step(tokens)
        self._wait()
        return perf_counter() - begun

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            self._torch.cuda.synchronize()

    def _steps(self, operators: Sequence[Operator], attention: Any = None) -> list[Step]:
        return [self._step(one, attention) for one in operators]

    def _step(self, one: Operator, attention: Any) -> Step:
        """Return what runs an operator over so many tokens; its input has the right shape and is made beforehand."""
        torch, width, out = self._torch, one.input_bytes // BYTES, one.output_bytes // BYTES
        last = one.input_rows is Rows.LOGITS

        def rows(tokens: int) -> int:
            return 1 if last else tokens

        if one.kind is OperatorClass.GEMM:
            weight = self._random(width, out)
            return lambda tokens: self._input(rows(tokens), width) @ weight
        if one.kind is OperatorClass.ATTENTION:
            return lambda tokens: self._attend(tokens, attention)
        if one.kind is OperatorClass.EMBEDDING:
            table = self._random(max(1, one.parameters // out), out)
            return lambda tokens: table[torch.arange(tokens, device=self._device) % len(table)]
        if one.kind is OperatorClass.SAMPLER:
            return lambda tokens: self._input(1, width).argmax(dim=-1)
        return lambda tokens: torch.nn.functional.silu(self._input(rows(tokens), width))

    def _attend(self, tokens: int, shape: GroupedAttention) -> Any:
        query = self._input(shape.heads * tokens, shape.head_dim).view(1, shape.heads, tokens, shape.head_dim)
        kept = self._input(shape.kv_heads * tokens, shape.head_dim).view(1, shape.kv_heads, tokens, shape.head_dim)
        grouped = {} if shape.heads == shape.kv_heads else {"enable_gqa": True}
        attend = self._torch.nn.functional.scaled_dot_product_attention
        return attend(query, kept, kept, is_causal=True, **grouped)

    def _input(self, rows: int, width: int) -> Any:
        """Return an input of a shape, the same memory again and again: what is in it does not matter."""
        needed = rows * width
        if self._memory.numel() < needed:
            self._memory = self._random(needed)
        return self._memory[:needed].view(rows, width)

    def _random(self, *shape: int) -> Any:
        return self._torch.randn(shape, dtype=self._dtype, device=self._device) / 64

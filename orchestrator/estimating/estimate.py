"""An estimate: the latencies of one static batch by the formulas, and what they rest on."""

from __future__ import annotations

from math import fsum
from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.estimating.formulas import Formula
from orchestrator.estimating.registries import Registries
from trace_gen.perf_models import PerfModelSettings

DEFAULT_REGISTRY = Path("data")


@dataclass(frozen=True, slots=True)
class Asked:
    """A static batch: `batch_size` sequences of `prompt_length` tokens, each answered with `response_length` more."""

    prompt_length: int
    response_length: int
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, least in (("prompt_length", 1), ("response_length", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{getattr(self, name)} is too few", field=name, fix=f"give at least {least}")

    def __str__(self) -> str:
        return f"batch of {self.batch_size}, prompts of {self.prompt_length} tokens, {self.response_length} more each"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The formulas' answer for what was asked, of a model on a GPU.

    `source`: where the prompt speed is from; `notes`: what stands in for entries that the registries lack.
    """

    asked: Asked
    model: str
    gpu: str
    formula: Formula
    source: str
    notes: tuple[str, ...] = ()

    @property
    def latencys(self) -> list[float]:
        """The prompt phase, then each token of the token phase, seconds: `response_length` + 1 values."""
        return self.formula.latencys(self.asked.batch_size, self.asked.prompt_length, self.asked.response_length)

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name: seconds, bytes, bytes/s, tokens/s."""
        latencys = self.latencys
        return {
            "model": self.model,
            "gpu": self.gpu,
            "batch_size": self.asked.batch_size,
            "prompt_length": self.asked.prompt_length,
            "response_length": self.asked.response_length,
            "weight_bytes": self.formula.weight_bytes,
            "kv_bytes_per_token": self.formula.kv_bytes_per_token,
            "bandwidth_bytes_per_s": self.formula.bandwidth,
            "ptps": self.formula.ptps,
            "ptps_source": self.source,
            "prompt_phase_s": latencys[0],
            "token_phase_s": fsum(latencys[1:]),
            "total_s": fsum(latencys),
            "latencys": latencys,
            "notes": list(self.notes),
        }


def estimate(
    registries: Registries,
    model_name: str,
    gpu: str | None,
    asked: Asked,
    *,
    perf_model: PerfModelSettings | None = None,
    efficiency: float = 1.0,
) -> Estimate:
    """Return the estimate of a model on a GPU (None: the one that PyTorch finds).

    `perf_model` (default: the roofline) gives the prompt speed where the registry has none; `efficiency`: the part of
    the memory bandwidth that reading reaches. Wrong input is a `UserError`.
    """
    from orchestrator.estimating.entries import known, ptps_of
    from trace_gen.perf_models import perf_models

    one = known(registries, model_name, gpu)
    speed, said = ptps_of(registries, one, gpu, perf_model or perf_models.get("roofline")())
    formula = Formula(one.model.weight_bytes, one.model.kv_bytes_per_token, one.gpu.bandwidth * efficiency, speed.ptps)
    notes = (*one.notes, *([said] if said else []))
    return Estimate(asked, one.model.name, one.gpu.name, formula, speed.source, notes)


def simulate(
    model_name: str,
    prompt_length: int,
    response_length: int,
    *,
    gpu: str | None = None,
    batch_size: int = 1,
    registry: str | Path = DEFAULT_REGISTRY,
    efficiency: float = 1.0,
) -> list[float]:
    """Return `latencys`, seconds: of the prompt phase, then of each token of the token phase.

    `gpu` None: the one that PyTorch finds here. `registry`: the folder of gpu.json, model.json and ptps.json; what it
    lacks is taken from what ships, as `orrery estimate` does. Wrong input is a `foundation.errors.UserError`.
    """
    asked = Asked(prompt_length, response_length, batch_size)
    return estimate(Registries(Path(registry)), model_name, gpu, asked, efficiency=efficiency).latencys


def figure_rows(found: Estimate) -> list[tuple[str, ...]]:
    """Return what an estimate rests on, and its phases, each with its unit."""
    formula, figures = found.formula, found.as_json()
    return [
        ("weights", f"{formula.weight_bytes / 1e9:.3f} GB"),
        ("KV cache of a token", f"{formula.kv_bytes_per_token / 1e3:.3f} kB"),
        ("memory bandwidth", f"{formula.bandwidth / 1e9:.1f} GB/s"),
        (f"PTPS, from {found.source}", f"{formula.ptps:.1f} tokens/s"),
        ("prompt phase", f"{1e3 * figures['prompt_phase_s']:.3f} ms"),
        ("token phase", f"{1e3 * figures['token_phase_s']:.3f} ms"),
        ("total", f"{1e3 * figures['total_s']:.3f} ms"),
    ]

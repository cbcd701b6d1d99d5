"""An estimate: the latencies of one static batch by the formulas, and what they rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.estimating.entries import Known, known, ptps_of
from orchestrator.estimating.formulas import Formula
from orchestrator.estimating.registries import Registries
from trace_gen.perf_models import PerfModelSettings
from trace_gen.perf_models.roofline import RooflineSettings

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
    efficiency: float = 1.0
    """The part of the GPU's bandwidth that `formula` has."""

    @property
    def latencys(self) -> list[float]:
        """The prompt phase, then each token of the token phase, seconds: `response_length` + 1 values."""
        return self.formula.latencys(self.asked.batch_size, self.asked.prompt_length, self.asked.response_length)

    @property
    def prompt_phase(self) -> float:
        """L_p, s."""
        return self.formula.prompt_phase(self.asked.batch_size, self.asked.prompt_length)

    @property
    def token_phase(self) -> float:
        """L_t, s, by the closed form."""
        asked = self.asked
        return self.formula.token_phase(asked.batch_size, asked.prompt_length, asked.response_length)

    @property
    def total(self) -> float:
        """L, s."""
        return self.prompt_phase + self.token_phase

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name: seconds, bytes, bytes/s, tokens/s."""
        return {
            "model": self.model,
            "gpu": self.gpu,
            "batch_size": self.asked.batch_size,
            "prompt_length": self.asked.prompt_length,
            "response_length": self.asked.response_length,
            "weight_bytes": self.formula.weight_bytes,
            "kv_bytes_per_token": self.formula.kv_bytes_per_token,
            "bandwidth_bytes_per_s": self.formula.bandwidth,
            "efficiency": self.efficiency,
            "ptps": self.formula.ptps,
            "ptps_source": self.source,
            "prompt_phase_s": self.prompt_phase,
            "token_phase_s": self.token_phase,
            "total_s": self.total,
            "latencys": self.latencys,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Estimator:
    """The formulas of a model on a GPU, for any batch: profiled once, asked many times."""

    known: Known
    formula: Formula
    source: str
    notes: tuple[str, ...]
    efficiency: float

    def estimate(self, asked: Asked) -> Estimate:
        """Return the estimate of a batch."""
        model, gpu = self.known.model.name, self.known.gpu.name
        return Estimate(asked, model, gpu, self.formula, self.source, self.notes, self.efficiency)


def estimator(
    registries: Registries,
    model_name: str,
    gpu: str | None,
    *,
    perf_model: PerfModelSettings | None = None,
    efficiency: float = 1.0,
) -> Estimator:
    """Return the formulas of a model on a GPU (None: the one that PyTorch finds).

    `perf_model` (default: the roofline) gives the prompt speed where the registry has none; `efficiency`: the part of
    the memory bandwidth that reading reaches. Wrong input is a `UserError`.
    """
    one = known(registries, model_name, gpu)
    speed, said = ptps_of(registries, one, gpu, perf_model or RooflineSettings())
    model = one.model
    formula = Formula(model.weight_bytes, model.kv_bytes_per_token, one.gpu.bandwidth * efficiency, speed.ptps)
    return Estimator(one, formula, speed.source, (*one.notes, *([said] if said else [])), efficiency)


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
    return estimator(Registries(Path(registry)), model_name, gpu, efficiency=efficiency).estimate(asked).latencys


def basis_rows(formula: Formula, source: str) -> list[tuple[str, ...]]:
    """Return what estimates rest on, each with its unit."""
    return [
        ("weights", f"{formula.weight_bytes / 1e9:.3f} GB"),
        ("KV cache of a token", f"{formula.kv_bytes_per_token / 1e3:.3f} kB"),
        ("memory bandwidth", f"{formula.bandwidth / 1e9:.1f} GB/s"),
        (f"PTPS, from {source}", f"{formula.ptps:.1f} tokens/s"),
    ]


def phase_rows(found: Estimate) -> list[tuple[str, ...]]:
    """Return the phases of an estimate, each with its unit."""
    phases = {"prompt phase": found.prompt_phase, "token phase": found.token_phase, "total": found.total}
    return [(name, f"{1e3 * value:.3f} ms") for name, value in phases.items()]

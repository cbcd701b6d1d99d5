"""Where a prompt speed comes from: prompts of several lengths, simulated or timed on a GPU, and a line through them.

a GPU and PyTorch    the model's matrices and attention, with random weights        `gpu`
a profile bundle     a simulation of each prompt, of operators that were measured    `--profile_dir`
a performance model  the same of operators that are estimated, the roofline's unless told otherwise
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foundation.digits import whole_number
from foundation.errors import UserError
from foundation.printable import brief
from orchestrator.estimating.registries import PtpsEntry
from orchestrator.estimating.regression import PromptFit, fit
from orchestrator.estimating.simulated import simulate_batch
from orchestrator.settings.specification import RunSpec

PROMPT_TOKENS = (128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048)
"""Lengths of the prompts, unless told otherwise: up to 2048 tokens, as far as the formula was shown to be a line."""
MOST_TOKENS = 2**20
Timed = Callable[[int], float]
"""Prompt tokens -> seconds."""


def prompt_speed(seconds: Timed, source: str, tokens: Sequence[int] = PROMPT_TOKENS) -> tuple[PtpsEntry, PromptFit]:
    """Time a prompt of each length and return the entry of the line through them, and the line."""
    latencies = [seconds(count) for count in tokens]
    line = fit(tokens, latencies)
    return PtpsEntry(line.ptps, source, tuple(tokens), tuple(latencies)), line


def simulated(spec: RunSpec) -> Timed:
    """Return what times one prompt alone by the full simulation with the engine of `spec`."""
    return lambda tokens: int(simulate_batch(spec, 1, tokens, 0).latencies_ns[0]) / 1e9


def source_of(spec: RunSpec) -> str:
    """Return what a simulation's times are from, in a few words."""
    name, perf_model = spec.engine.names["perf_model"], spec.engine.perf_model
    measured = getattr(perf_model, "profile_dir", None)
    return f"profile bundle {measured}" if measured is not None else f"performance model {name}"


def lengths(text: str) -> tuple[int, ...]:
    """Return the lengths that a text lists, separated by commas; a `UserError` names what is none."""
    found = []
    for part in text.split(","):
        value = whole_number(part.strip(), 1, MOST_TOKENS)
        if value is None:
            said = f"{brief(part)} is not a whole number from 1 to {MOST_TOKENS}"
            raise UserError(said, field="--tokens", fix="list lengths of prompts, such as 256,512,1024")
        found.append(value)
    return tuple(found)

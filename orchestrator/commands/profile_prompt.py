"""`orrery profile-prompt`: enters how many prompt tokens a GPU processes a second with a model (PTPS).

orrery profile-prompt --model_name facebook/opt-6.7b                                 timed on the GPU that is here
orrery profile-prompt --model_name M --gpu RTX4090 --profile_dir BUNDLE               from measured operators
orrery profile-prompt --model_name facebook/opt-6.7b --gpu A100-80G                  from a performance model
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import choice, setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, read
from orchestrator.commands import Command, commands
from trace_gen.perf_models import PerfModelSettings, perf_models

if TYPE_CHECKING:
    from orchestrator.estimating.entries import Known
    from orchestrator.estimating.prompts import Timed
    from orchestrator.estimating.regression import PromptFit


@dataclass(frozen=True)
class ProfilePromptSettings:
    """What the command is asked for."""

    model_name: str | None = setting(
        None,
        "model of the registry, shipped model, or the path of a config.json",
        aliases=("model",),
        shown_default="must be given",
    )
    gpu: str | None = setting(
        None,
        "GPU of the registry, shipped device, or the path of a hardware file",
        shown_default="the one that PyTorch finds",
    )
    tokens: str | None = setting(
        None,
        "lengths of the prompts that are timed, separated by commas",
        shown_default="128,256,512,768,...,2048",
    )
    perf_model: PerfModelSettings | None = choice(
        perf_models,
        None,
        "simulate the prompts with these latencies",
        shown_default="the prompts are timed on the GPU where it is here, else roofline",
    )
    registry: Path = setting(Path("data"), "folder of gpu.json, model.json and ptps.json", folder=True)


def run(arguments: Sequence[str]) -> int:
    """Enter the prompt speed that the command line asks for; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(ProfilePromptSettings),
                "main.py profile-prompt --model_name M [--gpu G] [FLAGS]",
                "Enter the prompt tokens that a GPU processes a second with a model into ptps.json of the estimator's "
                "registry: the line of least squares through 0 of latencies over prompt tokens.",
                "It says where the latencies are from. See docs/estimator.md.",
            )
        )
        return 0
    _enter(read(ProfilePromptSettings, Layers(flags=parse(arguments, catalogue(ProfilePromptSettings)))))
    return 0


def _enter(wanted: ProfilePromptSettings) -> None:
    from orchestrator.estimating.entries import known
    from orchestrator.estimating.prompts import PROMPT_TOKENS, lengths, prompt_speed
    from orchestrator.estimating.registries import Registries

    if wanted.model_name is None:
        raise UserError("no model is named", field="--model_name", fix="give one")
    tokens = PROMPT_TOKENS if wanted.tokens is None else lengths(wanted.tokens)
    registries = Registries(wanted.registry)
    one = known(registries, wanted.model_name, wanted.gpu)
    seconds, source = _timed(wanted, one)
    entry, line = prompt_speed(_shown(seconds, len(tokens)), source, tokens)
    registries.add_ptps(one.model.name, one.gpu.name, entry)
    for note in one.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{registries.prompts}: {one.model.name} on {one.gpu.name}, {entry.ptps:.1f} prompt tokens/s, from {source}")
    print(_straightness(line, len(tokens)))


def _timed(wanted: ProfilePromptSettings, one: Known) -> tuple[Timed, str]:
    """Return what times a prompt, and what its times are from."""
    from orchestrator.estimating.gpu import PromptPass, present_gpu
    from orchestrator.estimating.prompts import simulated, source_of
    from trace_gen.hardware import plain_name
    from trace_gen.models import load_model

    if wanted.perf_model is None:
        present = present_gpu()
        if present is not None and plain_name(present) in map(plain_name, (one.gpu.name, wanted.gpu or present)):
            architecture = load_model(one.model.config or one.model.name)
            return PromptPass(architecture, one.model.bits), f"PyTorch on {present}"
    spec = one.run(wanted.perf_model or perf_models.get("roofline")())
    return simulated(spec), source_of(spec)


def _shown(seconds: Timed, count: int) -> Timed:
    """Return the same, which tells on a terminal how many prompts are timed."""
    done = 0

    def timed(tokens: int) -> float:
        nonlocal done
        found = seconds(tokens)
        done += 1
        if sys.stderr.isatty():
            end = "\n" if done == count else ""
            print(f"\r{done} of {count} prompts timed", end=end, file=sys.stderr, flush=True)
        return found

    return timed


def _straightness(line: PromptFit, count: int) -> str:
    """Return how well a line describes the samples, in a sentence."""
    said = f"{count} prompts; the line is {100 * line.worst_error:.1f} % off at worst"
    if line.intercept is None:
        return said
    return f"{said}; one that need not begin at 0 begins at {1e3 * line.intercept:.3f} ms"


commands.register("profile-prompt")(Command("enter a prompt speed for estimate", run))

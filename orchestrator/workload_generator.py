"""Makes workloads: Poisson arrivals and log-normal lengths whose means are published; `python -m` writes a TSV file.

Means in tokens: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
SOSP 2023, figure 11: ShareGPT 161.31 in and 337.99 out, Alpaca 19.31 in and 58.45 out. That figure shows long
right tails, which a log-normal distribution has; its spread is not published, so the coefficients of variation
below are our choice, as are the limits to which draws are clipped.

Draws are by inverse distribution function from `random.Random`, one stream for each purpose, so that a seed gives
the same workload on every machine and the first n requests do not depend on how many are made.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from statistics import NormalDist

from foundation.commands import run_command
from foundation.errors import UserError, near_names
from foundation.settings import setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, Problem, read
from orchestrator.requests.request import Request
from orchestrator.workload import LATEST_ARRIVAL_NS, write_workload


@dataclass(frozen=True, slots=True)
class Lengths:
    """A log-normal distribution of tokens: its mean, its coefficient of variation, and the limits of a draw."""

    mean: float
    variation: float
    least: int
    most: int

    def draw(self, uniform: float) -> int:
        """Return the number of tokens at quantile `uniform` (0 to 1, exclusive)."""
        sigma_squared = math.log(1 + self.variation**2)
        mu = math.log(self.mean) - sigma_squared / 2
        tokens = round(math.exp(mu + math.sqrt(sigma_squared) * NormalDist().inv_cdf(uniform)))
        return min(self.most, max(self.least, tokens))


PROFILES: dict[str, tuple[Lengths, Lengths]] = {
    "sharegpt-like": (Lengths(161.31, 1.2, 4, 1024), Lengths(337.99, 0.9, 4, 1024)),
    "alpaca-like": (Lengths(19.31, 0.7, 4, 512), Lengths(58.45, 1.0, 2, 512)),
}


def generate(profile: str, rate: float, seed: int) -> Iterator[Request]:
    """Yield requests without end: arrivals of a Poisson process of `rate` requests/s (ns, the first at 0).

    An unknown `profile` is a `UserError`; `rate` 0 lets all arrive at 0.
    """
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}", field="--profile", fix=near_names(profile, PROFILES))
    prompts, outputs = PROFILES[profile]
    arrival_stream, prompt_stream, output_stream = (
        Random(f"{seed}/{purpose}") for purpose in ("arrival", "prompt", "output")
    )
    arrival_ns, identity = 0, 0
    while True:
        yield Request(identity, arrival_ns, prompts.draw(_open(prompt_stream)), outputs.draw(_open(output_stream)))
        if rate:
            arrival_ns += round(-math.log(_open(arrival_stream)) / rate * 1e9)
        identity += 1


def _open(stream: Random) -> float:
    """Return a draw of the open interval (0, 1): `random()` may be 0, which no inverse function takes."""
    return stream.random() or 2.0**-54


@dataclass(frozen=True)
class GeneratorSettings:
    """What the command is asked for."""

    output: Path | None = setting(None, "TSV file to write, given without a flag", shown_default="must be given")
    profile: str = setting("sharegpt-like", "lengths", choices=tuple(PROFILES))
    req_num: int = setting(100, "requests", least=1, most=10**9)
    rate: float = setting(10.0, "requests/s; 0: all arrive at once", least=0)
    seed: int = setting(0, "seed of all draws")

    def problems(self) -> Iterator[Problem]:
        """There is a file to write, and arrivals stay within what a clock can hold."""
        if self.output is None:
            yield Problem("output", "no file is named", "give the TSV file to write")
        if self.rate and self.req_num / self.rate * 1e9 > LATEST_ARRIVAL_NS / 100:
            years = self.req_num / self.rate / 3.2e7
            yield Problem(
                "rate", f"{self.rate:g} requests/s would spread them over {years:.3g} years", "give a higher rate"
            )


def read_flags(arguments: Sequence[str]) -> GeneratorSettings:
    """Return what a command line asks for; a `UserError` tells everything that is wrong with it."""
    return read(GeneratorSettings, Layers(flags=parse(arguments, catalogue(GeneratorSettings), first="output")))


def main() -> int:
    """Write the workload that the command line asks for."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        usage = "python -m orchestrator.workload_generator OUTPUT [FLAGS]"
        print(
            help_text(
                catalogue(GeneratorSettings),
                usage,
                "Write a workload: Poisson arrivals, log-normal lengths of a published mean.",
                "",
            )
        )
        return 0
    wanted = read_flags(sys.argv[1:])
    assert wanted.output is not None, "checked by `problems`"
    requests = generate(wanted.profile, wanted.rate, wanted.seed)
    count = write_workload(wanted.output, islice(requests, wanted.req_num))
    print(f"{count} requests written to {wanted.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

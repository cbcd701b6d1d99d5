"""Makes workloads: Poisson arrivals and log-normal lengths whose means are published; `python -m` writes a TSV file.

Means in tokens: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
SOSP 2023, figure 11: ShareGPT 161.31 in and 337.99 out, Alpaca 19.31 in and 58.45 out. That figure shows long
right tails, which a log-normal distribution has; its spread is not published, so the coefficients of variation
below are our choice, as are the limits to which draws are clipped.

Draws are by inverse distribution function from `random.Random`, one stream for each purpose, so that a seed gives
the same workload on every machine and the first n requests do not depend on how many are made.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from statistics import NormalDist

from foundation.commands import run_command
from foundation.errors import UserError, near_names
from orchestrator.request import Request
from orchestrator.workload import write_workload


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


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    result = argparse.ArgumentParser(
        prog="python -m orchestrator.workload_generator",
        description="Write a workload: Poisson arrivals, log-normal lengths of a published mean.",
        allow_abbrev=False,
    )
    result.add_argument("output", help="TSV file to write")
    result.add_argument("--profile", default="sharegpt-like", help=f"lengths: {', '.join(PROFILES)} (%(default)s)")
    result.add_argument("--req_num", "--req-num", type=int, default=100, help="requests (%(default)s)")
    result.add_argument("--rate", type=float, default=10.0, help="requests/s; 0: all arrive at once (%(default)s)")
    result.add_argument("--seed", type=int, default=0, help="seed of all draws (%(default)s)")
    return result


def main() -> int:
    """Write the workload that the command line asks for."""
    arguments = parser().parse_args()
    if arguments.req_num < 1:
        raise UserError(f"{arguments.req_num} requests", field="--req_num", fix="at least 1")
    if not 0 <= arguments.rate < math.inf:
        raise UserError(f"{arguments.rate} requests/s", field="--rate", fix="0 or more")
    requests = generate(arguments.profile, arguments.rate, arguments.seed)
    count = write_workload(arguments.output, islice(requests, arguments.req_num))
    print(f"{count} requests written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""What a client sends: how often, how long, what its prompts share, what follows. Several clients make a mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from foundation.records import dataclass
from foundation.settings import choice, section, setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.arrivals import DEFAULT_RATE, ArrivalProcess, arrival_processes
from orchestrator.requests.generators.arrivals.poisson import Poisson
from orchestrator.requests.generators.arrivals.trace import Trace
from orchestrator.requests.generators.pairs import TITLE, LengthPairs, length_pairs
from orchestrator.requests.generators.prefixes import PrefixSettings
from orchestrator.requests.generators.sessions import Sessions, session_kinds

MOST_PRIORITY = 10**6


@dataclass(frozen=True)
class ClientSettings:
    """A client, or many whose requests are alike."""

    share: float | None = setting(
        None,
        "part of the request rate that a client of a mixture sends, relative to the others'",
        above=0,
        most=1e6,
        shown_default="each has a request rate of its own",
    )
    priority: int | None = setting(
        None,
        "priority of the requests, which policies that know priorities serve in ascending order",
        least=-MOST_PRIORITY,
        most=MOST_PRIORITY,
        shown_default="0",
    )
    request_rate: float | None = setting(
        None,
        "requests (or sessions) a second; infinitely many: all at once",
        above=0,
        most=1e9,
        infinite=True,
        shown_default=f"{DEFAULT_RATE:g}; a trace's own",
    )
    arrivals: ArrivalProcess | None = choice(
        arrival_processes, None, "when requests come", title=TITLE, shown_default="poisson; a dataset's own times"
    )
    lengths: LengthPairs = choice(
        length_pairs,
        None,
        "how long prompts and answers are",
        title=TITLE,
        otherwise="separate",
        shown_default="separate",
    )
    prefixes: PrefixSettings = section(PrefixSettings)
    sessions: Sessions | None = choice(
        session_kinds,
        None,
        "what follows a request",
        title=TITLE,
        shown_default="none: requests stand by themselves",
    )

    @property
    def process(self) -> ArrivalProcess:
        """The arrival process of a client that makes its requests itself."""
        return Poisson() if self.arrivals is None else self.arrivals

    @property
    def at_once(self) -> bool:
        """Whether all requests come at 0."""
        return self.request_rate is not None and math.isinf(self.request_rate)

    @property
    def has_ids(self) -> bool:
        """Whether prompts have tokens in common, so that their ids matter."""
        return self.prefixes.prefix_len > 0 or self.sessions is not None

    def problems(self) -> Iterator[Problem]:
        """Rates are given once."""
        if self.request_rate is not None and self.process.own_rate:
            yield Problem("request_rate", "the ramp says it already", "leave it out, or --ramp_up_strategy")
        if isinstance(self.process, Trace) and self.process.rate_scale is not None and self.request_rate is not None:
            yield Problem("rate_scale", "conflicts with --request_rate", "leave one out")
        if isinstance(self.process, Trace) and self.at_once:
            yield Problem("request_rate", "inf, but a trace has times", "leave --arrivals out")

    def generates(self, dataset: Path | None) -> Iterator[Problem]:
        """Yield why a client with these settings cannot go with a data set, or without one."""
        plain = ClientSettings()
        if dataset is None:
            if isinstance(self.process, Trace) and self.process.arrivals_file is None:
                yield Problem("arrivals", "no file whose times are taken", "give --arrivals_file, or --dataset")
            return
        for name, given in (
            ("lengths", self.lengths != plain.lengths),
            ("prefix_len", self.prefixes != plain.prefixes),
            ("sessions", self.sessions is not None),
            ("priority", self.priority is not None),
            ("share", self.share is not None),
        ):
            if given:
                yield Problem(name, "--dataset has requests of its own", "leave one out")

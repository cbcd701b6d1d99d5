"""Lengths of a task's requests where no trace is given: log-normal, with the medians of Azure's two services.

Source of the medians: Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024,
section III: coding has prompts of 1,500 tokens and answers of 13 at the median, conversation 1,020 and 129. The spread
and the limits are our choice, and prompt and answer are drawn apart. A recorded trace has neither property: give it
where there is one.
"""

from __future__ import annotations

from foundation.records import dataclass
from orchestrator.request_table import RequestTable
from orchestrator.requests.generators.lengths import Published, Role
from orchestrator.requests.generators.lengths.lognormal import Lognormal
from orchestrator.requests.generators.streams import Stream
from orchestrator.requests.request import Request

NAME = "splitwise-medians"
ROWS = 10_000
"""Requests draw from so many, with replacement."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """A log-normal distribution of tokens by its `median` and coefficient of `variation`, cut at 1 and `most`."""

    median: int
    variation: float
    most: int

    @property
    def published(self) -> Published:
        """The same by its mean: the median times ``sqrt(1 + variation^2)``."""
        return Published(self.median * (1 + self.variation**2) ** 0.5, self.variation, 1, self.most)


TASKS = {
    "code": (Lengths(1500, 1.0, 8192), Lengths(13, 1.5, 2048)),
    "conv": (Lengths(1020, 1.2, 8192), Lengths(129, 1.2, 2048)),
}
"""Prompts and answers of each task."""


def lengths_of(task: str, seed: int) -> RequestTable:
    """Return requests with the lengths of `task`, all at 0: what a recorded trace is otherwise read for."""
    columns = [
        Lognormal().tokens(Stream(f"{seed}/{task}", name).uniforms(ROWS), Role(name, 1, of.published)).tolist()
        for name, of in zip(("prompt", "output"), TASKS[task], strict=True)
    ]
    rows = enumerate(zip(*columns, strict=True))
    return RequestTable.of(Request(number, 0, prompt, output) for number, (prompt, output) in rows)

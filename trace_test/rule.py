"""What a rule is, the registry of rules, and how they are run over a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from itertools import islice
from typing import Literal

from converters.execution_graph import ExecutionGraph
from foundation.records import dataclass
from foundation.registry import Registry
from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.precision import Precision
from trace_gen.trace import NO_LAYER, Trace

Needs = Literal["file", "trace", "graph", "model"]
REPORTED = 20
"""Violations of one rule that are reported for one subject; a broken block repeats in every layer."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of the model behind a trace; the batches of its members only where it was made here."""

    architecture: ModelArchitecture
    mesh: Mesh
    precision: Precision
    batches: tuple[BatchShape, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked. `trace` is absent for .et files, `model` where nothing says which model it is."""

    source: str
    trace: Trace | None = None
    graph: ExecutionGraph | None = None
    model: ModelFacts | None = None
    unreadable: str = ""
    """Why a file cannot be read at all."""
    prefix: str = ""
    """Of .et files: what stands before ``.<rank>.et``."""
    network_dims: tuple[int, ...] | None = None
    """NPUs along each dimension of the network, innermost first, where the network is known."""

    def row(self, row: int) -> str:
        """Name a row for a message."""
        assert self.trace is not None
        layer = int(self.trace.layer[row])
        prefix = "" if layer == NO_LAYER else f"L{layer}."
        return f"row {row} ({prefix}{self.trace.name(row)})"


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding: `where` (row, or rank and node) and `what` is wrong there; rule and cause are the rule's own.

    `rank` is the one whose nodes are wrong, where it is one rank's.
    """

    where: str
    what: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One property that every correct trace has.

    `about` explains it in a sentence or two, `cause` is what usually breaks it. `check` yields violations of a subject
    that has what the rule `needs`: a trace, an execution graph, or a trace and its model. `unchecked` says what of such
    a subject it must leave out all the same ("" for nothing).
    """

    name: str
    about: str
    cause: str
    needs: Needs
    check: Callable[[Subject], Iterator[Violation]]
    unchecked: Callable[[Subject], str] = lambda subject: ""

    def applies(self, subject: Subject) -> bool:
        """Whether `subject` has what the rule needs."""
        if self.needs == "file":
            return True
        if self.needs == "graph":
            return subject.graph is not None
        return subject.trace is not None and (self.needs == "trace" or subject.model is not None)


@dataclass(slots=True)
class Findings:
    """What running rules over one subject found: violations by rule name, and the rules that could not be run.

    A rule that had to leave something out is among the `skipped` too, with what that is.
    """

    violations: dict[str, list[Violation]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


rules: Registry[Rule] = Registry("trace rule")
for _module in (
    *("attention_separated", "input_matches_output", "collectives_placed", "collective_bytes", "model_shape"),
    *("weights_add_up", "kv_adds_up", "blocks_complete", "stage_order", "times", "dependencies", "group_members"),
    *("send_matches_recv", "collective_order", "acyclic", "ranks_present", "readable", "context_parallel"),
):
    rules.register_lazy(_module.replace("_", "-"), f"trace_test.rules.{_module}", "RULE")


def run_rules(subject: Subject) -> Findings:
    """Check `subject` against every rule that applies."""
    outcome = Findings()
    for name in rules:
        rule = rules.get(name)
        if not rule.applies(subject):
            outcome.skipped.append(name)
            continue
        if left_out := rule.unchecked(subject):
            outcome.skipped.append(f"{name} of {left_out}")
        found = list(islice(rule.check(subject), REPORTED))
        if found:
            outcome.violations[name] = found
    return outcome

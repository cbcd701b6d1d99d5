"""Every block of the model is there once, with the operators of all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.architecture import BlockForm, Layer
from trace_gen.trace import NO_LAYER, Trace
from trace_test.operators import NORMS
from trace_test.rule import Rule, Subject, Violation

NORMS_OF = {
    BlockForm.PRE_NORM: 2,
    BlockForm.POST_NORM: 2,
    BlockForm.SANDWICH: 4,
    BlockForm.PARALLEL: 1,
    BlockForm.PARALLEL_NORMS: 2,
}


def check(subject: Subject) -> Iterator[Violation]:
    """Compare each layer's operators with those of the first layer of its kind."""
    trace = subject.trace
    assert trace is not None
    layers = np.unique(trace.layer[trace.layer != NO_LAYER]).tolist()
    if not layers:
        return
    expected = range(subject.model.architecture.num_layers) if subject.model is not None else range(max(layers) + 1)
    missing = sorted(set(expected) ^ set(layers))
    if missing:
        word = "is missing" if missing[0] in expected else "is beyond the model's last"
        yield Violation(f"layer {missing[0]}", f"it {word} (layers 0 to {len(expected) - 1} are expected)")
    kinds = subject.model.architecture.layers if subject.model is not None else ()
    first_of: dict[Layer | None, int] = {}
    for layer in layers:
        like = first_of.setdefault(kinds[layer] if layer < len(kinds) else None, layer)
        yield from _compare(trace, layer, like) if layer != like else _norms(trace, layer, kinds)


def _compare(trace: Trace, layer: int, like: int) -> Iterator[Violation]:
    own, first = trace.op[trace.layer == layer], trace.op[trace.layer == like]
    if not np.array_equal(own, first):
        at = next((i for i, (a, b) in enumerate(zip(own, first, strict=False)) if a != b), min(own.size, first.size))
        names = [trace.op_names[ops[at]] if at < ops.size else "nothing" for ops in (own, first)]
        what = f"its operator {at} is {names[0]}, but in layer {like} it is {names[1]}"
        yield Violation(f"layer {layer}", what)


def _norms(trace: Trace, layer: int, kinds: tuple[Layer, ...]) -> Iterator[Violation]:
    """Count the norms of a block whose form is known; a wave has those of each member."""
    own = trace.layer == layer
    sets = np.unique(trace.rank_set[own & np.isin(trace.op, _named(trace))]).size
    found = int(np.isin(trace.op[own], _named(trace)).sum())
    form = kinds[layer].form if layer < len(kinds) else None
    if form is not None and found != NORMS_OF[form] * max(sets, 1):
        yield Violation(f"layer {layer}", f"it has {found} norms, but a {form.value} block has {NORMS_OF[form]}")


def _named(trace: Trace) -> list[int]:
    return [index for index, name in enumerate(trace.op_names) if name in NORMS]


RULE = Rule(
    name="blocks-complete",
    about="Every block of the model occurs, with as many norms as its form has, and all of a kind have the same "
    "operators in the same order."
    " (Where the model is not known, all blocks are taken to be of one kind.)",
    cause="a block that was worked out for one layer and not copied to all, or rows dropped in one of them",
    needs="trace",
    check=check,
)

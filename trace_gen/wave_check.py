"""Whether batches are ones that a trace can be made of: what a scheduler must hold to."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.errors import InternalError
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.trace import NO_REQUEST


def check_wave(batches: Sequence[BatchShape], mesh: Mesh) -> None:
    """Raise `InternalError` where `batches` are not those of a wave on `mesh`; one batch is the plain case."""
    if len(batches) != mesh.data:
        raise InternalError(f"{len(batches)} batches for {mesh.data} data-parallel members")
    empty = sum(not len(batch.request_ids) for batch in batches)
    if empty == len(batches):
        raise InternalError("a trace has at least one request")
    if empty and mesh.expert > 1 and mesh.member_size > 1:
        raise InternalError("a member of several ranks that shares experts runs a dummy batch, not an empty one")
    if any(batch.steps != batches[0].steps for batch in batches):
        raise InternalError("the batches of a wave have the same number of steps")
    for batch in batches:
        _check_batch(batch)


def _check_batch(batch: BatchShape) -> None:
    new, samples = batch.new_tokens, batch.samples
    if batch.total_tokens == batch.sampled_tokens == len(new) and (samples == 1).all() and (new == 1).all():
        return  # decodes, by far the most common
    if (new < 1).any():
        raise InternalError("each request of a batch computes at least one token")
    if ((samples < 0) | (samples > new)).any():
        raise InternalError("a request samples at least none and at most all of the tokens it computes")
    real = batch.request_ids != NO_REQUEST
    if batch.steps > 1 and not ((new == 1).all() and (samples[real] == 1).all()):
        raise InternalError("a batch of several steps holds decodes only")

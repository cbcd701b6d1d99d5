"""Ranks and their groups on a mesh: numbered once, divided without gaps, and as the field lays them out."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import UserError
from trace_gen.mesh import AXES, Mesh, lines

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)
SMALL = st.integers(1, 4)


def number(mesh: Mesh, stage: int, member: int, context: int, tensor: int) -> int:
    """The numbering in one line: tp varies fastest, then cp, dp and pp."""
    return ((stage * mesh.data + member) * mesh.context + context) * mesh.tensor + tensor


@SETTINGS
@given(tensor=SMALL, pipeline=SMALL, data=SMALL, context=SMALL)
def test_every_rank_has_one_place(tensor: int, pipeline: int, data: int, context: int) -> None:
    mesh = Mesh(tensor, pipeline, data=data, context=context)
    places = list(product(range(pipeline), range(data), range(context), range(tensor)))
    assert [number(mesh, *place) for place in places] == list(range(mesh.ranks))
    assert mesh.ranks == tensor * pipeline * data * context == len(places)
    for stage, member, inner, outer in places:
        rank = number(mesh, stage, member, inner, outer)
        assert mesh.stages_of([rank]) == {stage} and mesh.member_of(rank) == member
        assert rank in mesh.stage_ranks(stage) and rank in mesh.stage_ranks(stage, member)
    assert [rank for stage in range(pipeline) for rank in mesh.stage_ranks(stage)] == list(range(mesh.ranks))
    assert (mesh.member_size, mesh.stage_size) == (tensor * context, tensor * context * data)


@SETTINGS
@given(tensor=SMALL, pipeline=SMALL, data=SMALL, context=SMALL, axes=st.sets(st.sampled_from(AXES)))
def test_groups_differ_in_their_axes_alone(tensor: int, pipeline: int, data: int, context: int, axes: set[str]) -> None:
    mesh = Mesh(tensor, pipeline, data=data, context=context)
    place = {
        number(mesh, *at): dict(zip(("pp", "dp", "cp", "tp"), at, strict=True))
        for at in product(range(pipeline), range(data), range(context), range(tensor))
    }
    groups = mesh.groups(*sorted(axes))
    assert sorted(rank for group in groups for rank in group) == list(range(mesh.ranks))
    assert list(groups) == sorted(groups) and all(list(group) == sorted(group) for group in groups)
    for group in groups:
        outside = {tuple(place[rank][axis] for axis in AXES if axis not in axes) for rank in group}
        assert len(outside) == 1
    sizes = dict(zip(AXES, mesh.sizes, strict=True))
    width = 1
    for axis in axes:
        width *= sizes[axis]
    assert all(len(group) == width for group in groups)


def test_the_layout_that_the_page_draws() -> None:
    mesh = Mesh(tensor=2, pipeline=2, data=2)
    assert mesh.groups("tp") == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert mesh.groups("tp", "cp", "dp") == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert mesh.groups("dp") == ((0, 2), (1, 3), (4, 6), (5, 7))
    assert mesh.stage_ranks(1, 0) == (4, 5)
    assert mesh.stages_of((1, 2, 6)) == {0, 1}


def test_lines_of_a_network() -> None:
    assert lines((2, 3), [0]) == ((0, 1), (2, 3), (4, 5))
    assert lines((2, 3), [1]) == ((0, 2, 4), (1, 3, 5))
    assert lines((2, 3), [0, 1]) == (tuple(range(6)),)
    assert lines((2, 2), []) == ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"tensor": 0}, "^tensor parallelism is 0; give at least 1$"),
        ({"pipeline": -1}, "^pipeline parallelism is -1; give at least 1$"),
        ({"data": 0}, "^data parallelism is 0"),
        ({"context": 0}, "^context parallelism is 0"),
        ({"expert": 2}, "^--ep_size: experts over 2 ranks, but a stage has 1; give 1$"),
        ({"tensor": 4, "expert": 2}, "^--ep_size: experts over 2 ranks, but a stage has 4; give 1 or 4$"),
        ({"tensor": 4, "data": 2, "expert": 4}, "^--ep_size: experts over 4 ranks, but a stage has 8; give 1 or 8$"),
    ],
)
def test_degrees_that_cannot_be(degrees: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mesh(**degrees)


def test_degrees_that_can_be() -> None:
    for expert in (1, 8):
        assert Mesh(4, 3, expert, 2).ranks == 24
    assert Mesh(1, expert=1).stage_size == 1


def test_layers_of_stages() -> None:
    assert Mesh(pipeline=3).stage_layers(8) == (range(3), range(3, 6), range(6, 8))
    assert Mesh(pipeline=3, layers=(1, 5, 2)).stage_layers(8) == (range(1), range(1, 6), range(6, 8))
    assert Mesh(layers=(8,)).stage_layers(8) == (range(8),)


@pytest.mark.parametrize(
    ("pipeline", "layers", "message"),
    [
        (2, (4,), "^--pp_layers: layers of 1 stages, but there are 2; give each stage at least one layer$"),
        (3, (4, 0, 4), "^--pp_layers: stage 1 has 0 layers; give each stage at least one layer$"),
        (2, (9, -1), "^--pp_layers: stage 1 has -1 layers"),
    ],
)
def test_layers_that_cannot_be(pipeline: int, layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mesh(pipeline=pipeline, layers=layers)


@pytest.mark.parametrize("layers", [(4, 3), (5, 4)])
def test_layers_that_are_not_the_models(layers: tuple[int, ...]) -> None:
    said = (
        f"stages of {layers[0]}\\+{layers[1]} = {sum(layers)} layers, the model has 8; give 2 numbers that add up to 8"
    )
    with pytest.raises(UserError, match=f"^--pp_layers: {said}$"):
        Mesh(pipeline=2, layers=layers).stage_layers(8)

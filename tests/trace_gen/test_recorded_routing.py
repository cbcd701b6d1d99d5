"""Recorded routing: what a file may hold, what is refused with its line, and that its counts come out again."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_waves import MIXED, TINY

from foundation.errors import UserError
from trace_gen.architecture import LayerRun, ModelArchitecture
from trace_gen.mlp.choices import Choices, ChosenRouting
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.routings import routings
from trace_gen.mlp.routings.file import recording
from trace_gen.mlp.routings.file.choices import RecordedFrequencies, RecordedSteps
from trace_gen.mlp.routings.file.recording import Recording, read_recording

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
PAIR = Experts(4, 2, 64)


def small(*mixtures: Experts | None) -> ModelArchitecture:
    """Return a model whose layers have these experts, or an MLP."""
    dense, mixture = MIXED.runs[0].layer, TINY.runs[0].layer
    layers = [dense if one is None else type(mixture)(mixture.attention, one) for one in mixtures]
    made = ModelArchitecture(**{**vars(TINY), "runs": tuple(LayerRun(layer, 1) for layer in layers)})
    assert made.num_layers == len(mixtures)
    return made


def write(folder: Path, text: str) -> Path:
    path = folder / "routed.csv"
    path.write_text(text)
    return path


def choices(path: Path, model: ModelArchitecture, seed: int = 0) -> Choices:
    made = routings.get("file")(routing_file=path).routing(model, seed)
    assert isinstance(made, ChosenRouting) and made.name == "file" and made.by_layer and made.by_step
    return made.choices


STEPS = """\
step,layer,expert,tokens
0,1,0,3
0,1,1,1
0,1,2,2
1,1,3,5
1,1,0,5
0,2,0,1
0,2,3,1
1,2,2,1
1,2,1,1
"""


def test_recorded_tokens_come_out_again_step_by_step_and_from_the_start(tmp_path: Path) -> None:
    made = choices(write(tmp_path, STEPS), small(None, PAIR, PAIR))
    assert made.chosen(PAIR, [1], 0, range(3)).tolist() == [[3, 1, 2, 0]]
    assert made.chosen(PAIR, [1], 1, range(5)).tolist() == [[5, 0, 0, 5]]
    assert made.chosen(PAIR, [2, 1], 4, range(1)).tolist() == [[1, 0, 0, 1], [1, 0, 1, 0]]
    assert made.chosen(PAIR, [2], 3, range(10)).tolist() == [[0, 10, 10, 0]]
    assert made.popularity(PAIR, [1, 2]).tolist() == [[8, 1, 2, 5], [1, 1, 1, 1]]


def test_other_numbers_of_tokens_are_shared_in_proportion(tmp_path: Path) -> None:
    """Of 6 choices 3, 1, 2: of 10 they are 5, 1.67 and 3.33, so the second has the one that is left over."""
    made = choices(write(tmp_path, STEPS), small(None, PAIR, PAIR))
    assert made.chosen(PAIR, [1], 2, range(5)).tolist() == [[5, 2, 3, 0]]
    assert made.chosen(PAIR, [1], 2, range(0)).tolist() == [[0, 0, 0, 0]]


@st.composite
def recorded(draw: st.DrawFn) -> tuple[Experts, np.ndarray]:
    """Return experts, and what tokens of theirs chose at some steps, ``[steps, experts]``."""
    count = draw(st.integers(1, 10))
    experts = Experts(count, draw(st.integers(1, count)), 64)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = [
        np.bincount(
            np.concatenate([random.permutation(count)[: experts.per_token] for _ in range(random.integers(1, 40))]),
            minlength=count,
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return experts, np.array(steps)


@SETTINGS
@given(case=recorded(), tokens=st.integers(0, 80), step=st.integers(0, 9))
def test_every_token_still_chooses_different_experts(case: tuple[Experts, np.ndarray], tokens: int, step: int) -> None:
    experts, counts = case
    of_steps = RecordedSteps(Recording({0: counts}, True))
    of_all = RecordedFrequencies(Recording({0: counts.sum(axis=0, keepdims=True)}, False), 3)
    for made in (of_steps, of_all):
        chosen = made.chosen(experts, [0], step, range(tokens))
        assert chosen.sum() == tokens * experts.per_token
        assert ((chosen >= 0) & (chosen <= tokens)).all()
    own = counts[step % len(counts)]
    assert (of_steps.chosen(experts, [0], step, range(int(own.sum()) // experts.per_token))[0] == own).all()


def test_frequencies_are_those_of_the_recording(tmp_path: Path) -> None:
    """Every expert is chosen as often as it was, each time independently: 90, 60, 40 and 10 of 100 tokens."""
    text = "layer,expert,tokens\n1,0,90\n1,1,60\n1,2,40\n1,3,10\n"
    made = choices(write(tmp_path, text), small(None, PAIR))
    steps = np.array([made.chosen(PAIR, [1], step, range(50))[0] for step in range(400)])
    shares = np.array([0.9, 0.6, 0.4, 0.1])
    assert np.abs(steps.mean(axis=0) / 50 - shares).max() < 0.015
    assert steps.var(axis=0) == pytest.approx(50 * shares * (1 - shares), rel=0.2)
    assert made.popularity(PAIR, [1]).tolist() == [[90, 60, 40, 10]]


def test_frequencies_are_drawn_for_each_token_step_layer_and_seed(tmp_path: Path) -> None:
    text = "layer,expert,tokens\n" + "".join(f"{layer},{expert},7\n" for layer in (0, 1) for expert in range(4))
    path, model = write(tmp_path, text), small(PAIR, PAIR)
    made = choices(path, model)
    whole = made.chosen(PAIR, [0, 1], 3, range(40))
    parts = [made.chosen(PAIR, [0, 1], 3, part) for part in (range(25, 40), range(25))]
    assert (sum(parts) == whole).all()
    assert (choices(path, model).chosen(PAIR, [1], 3, range(40))[0] == whole[1]).all()
    assert (whole[0] != whole[1]).any()
    assert (made.chosen(PAIR, [0, 1], 4, range(40)) != whole).any()
    assert (choices(path, model, 1).chosen(PAIR, [0, 1], 3, range(40)) != whole).any()


def test_an_expert_that_all_tokens_chose_has_all(tmp_path: Path) -> None:
    made = choices(write(tmp_path, "tokens,expert,layer\n8,2,0\n5,0,0\n3,1,0\n"), small(PAIR))
    for step in range(30):
        counts = made.chosen(PAIR, [0], step, range(11))[0]
        assert counts[2] == 11 and counts[3] == 0


HEAD = "layer,expert,tokens\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are ''; expected layer,expert,tokens or step,layer,expert,tokens"),
        ("layer,expert\n", "line 1: the columns are 'layer,expert'; expected layer,expert,tokens or step,layer"),
        ("layer,expert,tokens,layer\n", "line 1: the columns are 'layer,expert,tokens,layer'; expected"),
        (HEAD + "1,0\n", "line 2: 2 columns; expected layer,expert,tokens or step,layer,expert,tokens"),
        (HEAD + "1,0,3,4\n", "line 2: 4 columns; expected"),
        (HEAD + "0,0,3\n", "line 2: layer '0' is no layer with experts; expected one of 1-2, 4$"),
        (HEAD + "5,0,3\n", "line 2: layer '5' is no layer with experts; expected one of 1-2, 4$"),
        (HEAD + "x,0,3\n", "line 2: layer 'x' is no layer with experts"),
        (
            HEAD + "1,4,3\n",
            "line 2: expert, tokens are '4', '3'; expected whole numbers: expert from 0 to 3, tokens from",
        ),
        (HEAD + "\n1,0,-3\n", "line 3: expert, tokens are '0', '-3'; expected .* tokens from 0 to 2147483648$"),
        (HEAD + "1,0,2147483649\n", "line 2: expert, tokens are '0', '2147483649'"),
        (HEAD + "1,0,1.5\n", "line 2: expert, tokens are '0', '1.5'"),
        (
            "step," + HEAD + "-1,1,0,1\n",
            "line 2: step, expert, tokens are '-1', '0', '1'; .* step from 0 to 999999, exp",
        ),
        ("step," + HEAD + "1000000,1,0,1\n", "line 2: step, expert, tokens are '1000000', '0', '1'"),
        (HEAD + "1,0,1\n1,1,1\n1,0,2\n", "line 4: says again what line 2 says; leave one out"),
        (HEAD + "1,0,1\n1,1,1\n2,0,1\n2,1,1\n", "routed.csv: no tokens for layer 4; every layer with experts has some"),
        (
            HEAD + "1,0,3\n1,1,1\n",
            "line 2: expert 0 has 3 of 4 choices, but a token chooses 2 different ones; expected at m",
        ),
        (
            "step," + HEAD + "1,1,0,1\n1,1,1,1\n",
            "no tokens for layer 1 of step 0; every layer with experts has some at eve",
        ),
        (HEAD + '1,"0,1\n', "line 2: 2 columns"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        read_recording(write(tmp_path, text), small(None, PAIR, PAIR, None, PAIR))
    told = str(refused.value)
    assert re.search(message, told.replace('"', "'")) and "routed.csv" in told and "\n" not in told


def test_a_recording_is_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, STEPS)
    monkeypatch.setattr(recording, "DATA_BYTES", len(STEPS))
    assert read_recording(path, small(None, PAIR, PAIR)).steps == 2
    monkeypatch.setattr(recording, "DATA_BYTES", len(STEPS) - 1)
    with pytest.raises(UserError, match=r"routed\.csv: the recording of routed tokens .*bytes"):
        read_recording(path, small(None, PAIR, PAIR))


def test_a_recording_may_just_be_as_large_as_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, STEPS)
    monkeypatch.setattr(recording, "MOST_COUNTS", 16)
    assert read_recording(path, small(None, PAIR, PAIR)).steps == 2
    monkeypatch.setattr(recording, "MOST_COUNTS", 15)
    with pytest.raises(UserError, match=r"has 2 steps of 2 layers; steps x experts of all layers are at most 15$"):
        read_recording(path, small(None, PAIR, PAIR))


def test_the_bounds_of_a_row_are_allowed(tmp_path: Path) -> None:
    text = HEAD + "1, 3 ,2147483648\n1,0,0\n1,1,2147483648\n"
    made = read_recording(write(tmp_path, text), small(None, PAIR))
    assert made.tokens[1].tolist() == [[0, 2**31, 0, 2**31]]
    assert not made.by_step and made.steps == 1
    assert RecordedFrequencies(made, 0).chosen(PAIR, [1], 0, range(9)).tolist() == [[0, 9, 0, 9]]


def test_a_file_is_needed() -> None:
    with pytest.raises(UserError, match="--routing_file: a recording of routed tokens is needed; give its CSV file"):
        routings.get("file")().routing(small(PAIR), 0)

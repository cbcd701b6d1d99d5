"""LLMServingSim v0.2.1 tables: rows as they are, what stands in for missing rows, and what is said of wrong files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, rows_named, with_layers

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.measured.curve import Curve
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import Trace

HEADER = "hardware,model,layer_name,input,kv_cache,latency(ns)"
NAME = "huggyllama/llama-7b"
LINEAR = [
    "embedding",
    "input_layernorm",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "post_layernorm",
    "gate_proj",
    "up_proj",
    "act_fn",
    "down_proj",
]
LINEAR += ["final_layernorm", "lm_head"]


def small(name: str = NAME) -> ModelArchitecture:
    architecture = load_model(name)
    return with_layers(architecture, *architecture.layers[:2])


def table(path: Path, rows: list[str], name: str = NAME, layers: list[str] | None = None) -> Path:
    """Write a table with 1000 ns for every linear layer at 1 and 101 tokens (1000 and 2000 ns), and `rows`."""
    lines = [HEADER]
    for layer in layers or LINEAR:
        lines += [f"RTX3090,{name},{layer},1,0,1000", f"RTX3090,{name},{layer},101,0,2000"]
    lines += [f"RTX3090,{name},{row}" for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


ATTENTION = [
    *("rope,1,0,10", "rope,1,100,10", "rope,100,0,500"),
    *("attn,1,0,100", "attn,1,100,300", "attn,100,0,5000", "attn,200,0,17000"),
]


def generate(path: Path, shape: object, architecture: ModelArchitecture | None = None, **spread: object) -> Trace:
    model = architecture or small()
    tensor = int(spread.pop("tensor", 1))  # type: ignore[call-overload]
    perf = make_perf_model("table_v0", PerfModelOptions(model, load_hardware("RTX3090"), tensor), perf_table=path)
    return TraceGenerator(model, Mesh(tensor), perf, **spread).generate([shape])  # type: ignore[arg-type]


def latency(trace: Trace, name: str, index: int = 0) -> int:
    return int(trace.latency_ns[0, rows_named(trace, name)[index]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return table(tmp_path / "RTX3090.csv", ATTENTION)


def test_rows_are_the_originals(path: Path) -> None:
    trace = generate(path, batch([100, 1], [0, 100]))
    block = [
        "input_layernorm",
        "q_proj",
        "k_proj",
        "v_proj",
        "rope",
        "attn",
        "rope",
        "attn",
        "o_proj",
        "post_layernorm",
    ]
    block += ["gate_proj", "up_proj", "act_fn", "down_proj"]
    names = [trace.name(row) for row in range(trace.rows)]
    assert names == ["embedding", *block * 2, "final_layernorm", "lm_head"]
    assert [latency(trace, "attn", index) for index in range(2)] == [5000, 300]
    assert [latency(trace, "rope", index) for index in range(2)] == [500, 10]
    assert latency(trace, "q_proj") == 2000, "101 tokens"
    assert latency(trace, "lm_head") == 1010, "2 sequences"
    assert trace.request[rows_named(trace, "attn")].tolist() == [0, 1, 0, 1]


def test_the_first_of_two_rows_wins(tmp_path: Path) -> None:
    twice = table(tmp_path / "t.csv", [*ATTENTION, "attn,1,100,999", "o_proj,101,0,7"])
    trace = generate(twice, batch([1] * 101, [100] * 101))
    assert (latency(trace, "attn"), latency(trace, "o_proj")) == (300, 2000)


def test_between_beyond_and_below_the_rows(path: Path) -> None:
    trace = generate(path, batch([51, 1, 1], [0, 50, 400]))
    assert latency(trace, "q_proj") == 1520
    assert latency(trace, "attn", 1) == 200
    assert latency(trace, "attn", 2) == 300 + 300 * 2
    assert latency(trace, "rope", 2) == 10
    assert latency(generate(path, batch([301])), "q_proj") == 4000


def test_a_chunk_on_context_is_the_difference_of_two_prompts(path: Path) -> None:
    trace = generate(path, batch([100], [100]))
    assert latency(trace, "attn") == 17000 - 5000
    assert latency(trace, "rope") == 500


def test_a_row_for_the_chunk_itself_is_taken_as_it_is(tmp_path: Path) -> None:
    exact = table(tmp_path / "t.csv", [*ATTENTION, "attn,100,100,4321"])
    assert latency(generate(exact, batch([100], [100])), "attn") == 4321


def test_ranks_divide_everything_but_attention_by_request(path: Path) -> None:
    shape = batch([1, 1, 1], [100, 100, 0])
    by_heads = generate(path, shape, tensor=4)
    assert latency(by_heads, "attn") == 300 // 4
    assert latency(by_heads, "q_proj") == 1020 // 4
    by_request = generate(path, shape, tensor=4, attention_placement="requests")
    assert latency(by_request, "attn") == 300
    assert latency(by_request, "q_proj") == 1020 // 4
    assert by_request.rank_sets[by_request.rank_set[rows_named(by_request, "rope")[1]]] == (1,)


def test_steps_read_the_table_at_each_context(path: Path) -> None:
    trace = generate(path, batch([1, 1], [10, 20], steps=50))
    row = rows_named(trace, "attn")[1]
    assert trace.latency_ns[:, row].tolist() == [100 + 2 * (20 + step) for step in range(50)]


def test_opts_three_attention_layers_are_one_row(tmp_path: Path) -> None:
    layers = [
        "embedding",
        "input_layernorm",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "post_layernorm",
        "fc1",
        "act_fn",
        "fc2",
    ]
    parts = ["qk_matmul,1,0,10", "qk_matmul,1,100,110", "softmax,1,0,5", "sv_matmul,1,0,7", "sv_matmul,1,100,27"]
    name = "facebook/opt-6.7b"
    path = table(tmp_path / "t.csv", parts, name, [*layers, "final_layernorm", "lm_head"])
    trace = generate(path, batch([1], [50]), small(name))
    assert latency(trace, "attn") == 60 + 5 + 17
    assert "rope" not in trace.op_names


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    points=st.dictionaries(st.integers(0, 500), st.integers(0, 10**6), min_size=1, max_size=12),
    size=st.integers(0, 2000),
)
def test_a_curve_keeps_its_points_and_never_falls_beyond_them(points: dict[int, int], size: int) -> None:
    curve = Curve({key: float(value) for key, value in points.items()})
    for known, value in points.items():
        assert curve.at(known)[()] == pytest.approx(value)
    last = max(points)
    assert curve.at(last + size)[()] >= points[last] - 1e-6
    assert min(points.values()) - 1e-6 <= curve.at(min(size, last))[()] <= max(points.values()) + 1e-6


def test_noise_at_the_end_does_not_decide_the_extrapolation() -> None:
    curve = Curve({size: 1000.0 + size + (50 if size == 99 else 0) for size in range(101)})
    assert 1900 < curve.at(1000)[()] < 2100


def fails(path: Path, message: str, architecture: ModelArchitecture | None = None) -> None:
    with pytest.raises(UserError, match=message):
        generate(path, batch([1]), architecture)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("attn,1,0", r"t\.csv, line 35: 5 columns; expected hardware,model"),
        ("attn,one,0,5", r'line 35: input, kv_cache, latency are "one", "0", "5"; expected whole numbers from 1 and'),
        ("attn,1,0,nan", r'line 35: input, kv_cache, latency are "1", "0", "nan"; expected'),
        ("attn,0,0,5", r'line 35: input, kv_cache, latency are "0", "0", "5"; expected'),
        (
            "attn,1,-1,5",
            r'are "1", "-1", "5"; expected whole numbers from 1 and from 0 to 2147483648, and ns from 0 to',
        ),
        ("attn,1,0,-5", r'are "1", "0", "-5"; expected'),
        ("attn,1,0,1.1e15", r'are "1", "0", "1.1e15"; expected'),
        ("attn,1_0,0,5", r'are "1_0", "0", "5"; expected'),
        ("attn,１,0,5", r'are "１", "0", "5"; expected'),
        ("attn,2147483649,0,5", r'are "2147483649", "0", "5"; expected'),
        (f"attn,1,0,{'7' * 500}", r'line 35: input, kv_cache, latency are "1", "0", "7{36}\.\.\.; expected'),
        (f"attn,{'x' * 200_000}", r"line 35: the latency table is no CSV file: field larger than field limit"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    fails(table(tmp_path / "t.csv", [*ATTENTION, row]), message)


def test_the_limits_of_a_row(tmp_path: Path) -> None:
    rows = ["attn,2147483648,0,1e15", "attn, 3 ,0, .5", "attn,1,2147483648,0"]
    trace = generate(table(tmp_path / "t.csv", [*ATTENTION, *rows]), batch([3]))
    assert latency(trace, "attn") == 1, "half a nanosecond is rounded, and at least 1"


def test_wrong_files(tmp_path: Path) -> None:
    fails(tmp_path / "none.csv", r"none\.csv: the latency table does not exist")
    (tmp_path / "empty.csv").write_text("")
    fails(tmp_path / "empty.csv", r"line 1: the latency table lacks the column hardware, model")
    (tmp_path / "old.csv").write_text("hardware,model,layer_name,input,latency(ns)\n")
    fails(tmp_path / "old.csv", "lacks the column kv_cache; expected hardware,model")


def test_what_the_table_lacks(path: Path, tmp_path: Path) -> None:
    fails(path, "no rows for model 'huggyllama/llama-13b'; did you mean huggyllama/llama-7b", small("llama-13b"))
    other = tmp_path / "other.csv"
    other.write_text(path.read_text().replace("RTX3090", "RTX3080"))
    fails(other, "no rows for hardware 'RTX3090'; did you mean RTX3080")
    bare = table(tmp_path / "bare.csv", ["attn,1,5,3"])
    fails(bare, r"no rows \(with kv_cache 0\) for rope, qk_matmul, softmax, sv_matmul|for rope, attn")


def test_without_a_table() -> None:
    with pytest.raises(UserError, match="--perf_table: table_v0 needs a latency table"):
        make_perf_model("table_v0", PerfModelOptions(small(), load_hardware("RTX3090")))

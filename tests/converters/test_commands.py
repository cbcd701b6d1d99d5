"""``python -m converters`` from outside: what it writes, prints and answers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from converters.chakra import read_graph, write_graph
from converters.convert import Spreading, text_to_et
from converters.lowering import lower
from converters.text import collect, open_text, place, placement, write_text_trace
from tests.converters import samples
from tests.converters.traces import Row, make_trace, transformer
from trace_gen.mesh import Mesh
from trace_gen.trace import CommType

ROOT = Path(__file__).parents[2]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command; it must exit with `code`."""
    command = [sys.executable, "-m", "converters", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == code, answer.stderr
    return answer


@pytest.fixture
def orca(tmp_path: Path) -> Path:
    path = tmp_path / "trace.txt"
    path.write_text(samples.orca(groups=2))
    return path


def test_a_text_becomes_one_file_a_rank(orca: Path, tmp_path: Path) -> None:
    answer = run(orca, tmp_path / "out/llm", "--npu_num", 4, "--npu-group", 2)
    assert answer.stdout.endswith("(5 files)\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"llm.{rank}.et" for rank in range(4)),
        "llm.comm_groups.json",
    }
    expected = lower(collect(place(open_text(orca), 4)), annotate=True)
    write_graph(expected, tmp_path / "expected")
    for rank in range(4):
        assert (tmp_path / f"out/llm.{rank}.et").read_bytes() == (tmp_path / f"expected.{rank}.et").read_bytes()
    groups = json.loads((tmp_path / "out/llm.comm_groups.json").read_text())
    assert groups == {"1": [0, 1], "2": [2, 3]}


def test_network_dimensions_take_the_place_of_groups(orca: Path, tmp_path: Path) -> None:
    """Those of an earlier conversion, too."""
    for dims, kept in (([], True), (["--network_dims", "2,2"], False)):
        run(orca, tmp_path / "llm", "--npu_num", 4, *dims)
        assert (tmp_path / "llm.comm_groups.json").exists() is kept


@pytest.mark.parametrize("annotate", [True, False])
@pytest.mark.parametrize("true_work", [True, False])
@pytest.mark.parametrize("dims", [None, (2, 2)])
def test_a_text_whose_rows_name_what_they_wait_for_is_converted_whole(
    tmp_path: Path, annotate: bool, true_work: bool, dims: tuple[int, int] | None
) -> None:
    """It cannot be streamed; whatever is asked for is asked of the lowering."""
    rows = [Row("a", (0, 1, 2, 3), flops=900, mem_bytes=90), Row("b", (0, 1)), Row("c", (2, 3), deps=(0,))]
    rows.append(Row("d", (0, 1, 2, 3), comm=(CommType.ALLREDUCE, 64), group=(0, 1, 2, 3), deps=(1, 2)))
    trace = make_trace(rows)
    write_text_trace(trace, tmp_path / "deps.txt")
    where = Spreading(network_dims=dims)
    text_to_et(tmp_path / "deps.txt", tmp_path / "got", where, true_work=true_work, annotate=annotate)
    write_graph(lower(trace, network_dims=dims, true_work=true_work, annotate=annotate), tmp_path / "expected")
    for rank in range(4):
        assert (tmp_path / f"got.{rank}.et").read_bytes() == (tmp_path / f"expected.{rank}.et").read_bytes()


@pytest.mark.parametrize("kept", [0, 2, 100])
def test_however_few_placed_rows_are_kept_the_same_come_out(
    orca: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(place(open_text(orca), 4).records)
    monkeypatch.setattr(placement, "KNOWN_ROWS", kept)
    placer = placement._Placer(open_text(orca), Mesh(2, 2))
    assert list(placer.records()) == whole
    assert len(placer.known) == kept if kept < 100 else 2 < len(placer.known) < len(whole)


def test_texts_become_texts(orca: Path, tmp_path: Path) -> None:
    assert run(orca, tmp_path / "same.txt", "--to", "orca").stdout == f"{tmp_path}/same.txt\n"
    assert (tmp_path / "same.txt").read_bytes() == orca.read_bytes()
    run(orca, tmp_path / "ours.txt", "--to", "orrery", "--npu_num", 4)
    assert (tmp_path / "ours.txt").read_text().startswith("ORRERY\t1\nattributes\t")
    one, other = tmp_path / "one", tmp_path / "other"
    run(orca, one, "--npu_num", 4)
    run(tmp_path / "ours.txt", other)
    for rank in range(4):
        assert Path(f"{one}.{rank}.et").read_bytes() == Path(f"{other}.{rank}.et").read_bytes()


def test_rows_with_dependencies_convert_too(tmp_path: Path) -> None:
    trace = make_trace([Row("a", (0,)), Row("b", (1,), deps=(0,))])
    write_text_trace(trace, tmp_path / "t.txt")
    assert run(tmp_path / "t.txt", tmp_path / "g").stdout == f"{tmp_path}/g.0.et ... {tmp_path}/g.1.et (2 files)\n"
    assert [own.ranks for own in read_graph(tmp_path / "g").rank_graphs] == [(0,), (1,)]


def test_statistics_sum_what_the_rows_say(orca: Path) -> None:
    lines = run("--stats", orca).stdout.splitlines()
    assert lines[0].split() == ["rows", "32"]
    assert "compute time        53276 ns (0.053 ms)" in lines
    assert "ALLREDUCE           4 collectives, 32768 bytes" in lines
    assert lines[7].split()[:3] == ["down_proj", "19998", "ns"]


def test_an_operator_of_others_cannot_steer_a_terminal(tmp_path: Path) -> None:
    write_text_trace(make_trace([Row("a\x1b[2J\nb")]), tmp_path / "t.txt")
    shown = run("--stats", tmp_path / "t.txt").stdout
    assert "  a\\x1b[2J\\nb " in shown and "\x1b" not in shown


def test_nodes_are_shown_as_lines_as_json_and_as_a_graph(tmp_path: Path) -> None:
    write_graph(lower(transformer(1, 2)), tmp_path / "g")
    path = tmp_path / "g.1.et"
    lines = run("--show", path).stdout.splitlines()
    assert lines[0] == "# version 0.0.4"
    assert lines[1].startswith("0\tCOMM_RECV\tL2.input_norm.recv\twaits for -\tis_cpu_op=false comm_size=8192")
    nodes = [json.loads(line) for line in run("--show", path, "--json").stdout.splitlines()[1:]]
    assert nodes[1] == {
        "id": 1,
        "name": "L2.input_norm",
        "type": "COMP",
        "data_deps": [0],
        "attr": {"is_cpu_op": False, "num_ops": 1105500, "tensor_size": 1},
    }
    dot = run("--show", path, "--dot").stdout
    assert dot.startswith("digraph trace {")
    assert "  0 -> 1;" in dot


def test_differences_are_named_and_exit_1(tmp_path: Path) -> None:
    one, other = (lower(transformer(1, 1, latency=latency)) for latency in (1000, 1001))
    other.rank_graphs[0].names = ("other", *other.rank_graphs[0].names[1:])
    for name, graph in (("a", one), ("b", other)):
        write_graph(graph, tmp_path / name)
    assert run("--diff", tmp_path / "a.0.et", tmp_path / "a.0.et").stdout == ""
    answer = run("--diff", tmp_path / "a.0.et", tmp_path / "b.0.et", code=1)
    assert "node 1: attr num_ops: 1000500 -> 1001500" in answer.stdout.splitlines()
    assert any(": name: " in line and "-> other" in line for line in answer.stdout.splitlines())
    write_graph(lower(make_trace([Row("embedding")])), tmp_path / "c")
    assert f"only in {tmp_path}/a.0.et" in run("--diff", tmp_path / "a.0.et", tmp_path / "c.0.et", code=1).stdout


def test_ranks_merge_into_one_chrome_trace(tmp_path: Path) -> None:
    write_graph(lower(transformer(2, 2)), tmp_path / "out/g")
    assert run("--merge", tmp_path / "out", tmp_path / "timeline.json").stdout == f"{tmp_path}/timeline.json\n"
    events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {f"rank {rank}" for rank in range(4)}
    first = next(event for event in events if event.get("name") == "embedding")
    assert (first["pid"], first["ts"], first["dur"], first["cat"]) == (0, 0.0, 1.0, "comp")
    (qkv, norm) = (next(e for e in events if e["name"] == f"L0.{op}" and e["pid"] == 0)
                   for op in ("qkv_proj", "input_norm"))  # fmt: skip
    assert qkv["ts"] == pytest.approx(norm["ts"] + norm["dur"]), "a node begins when what it waits for has ended"


def test_merging_does_not_simulate_but_says_what_does(tmp_path: Path) -> None:
    """With the files for it, the embedded backend's own command is printed; it is run here as it stands."""
    write_graph(lower(transformer(2, 2)), tmp_path / "g")
    files = {
        "network.yml": "topology: [ Ring ]\nnpus_count: [ 4 ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n",
        "system.json": json.dumps({
            "scheduling-policy": "LIFO", "endpoint-delay": 10, "active-chunks-per-dimension": 1,
            "preferred-dataset-splits": 1, "all-reduce-implementation": ["ring"], "local-mem-bw": 1600,
            "collective-optimization": "baseline", "roofline-enabled": 1, "peak-perf": 1,
        }),
        "memory.json": json.dumps({
            "memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 64,
        }),
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    flags = [f"--{name.split('.')[0]}={tmp_path / name}" for name in files]
    answer = run("--merge", tmp_path / "g", tmp_path / "timeline.json", *flags, code=2)
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: --network: merging simulates nothing; the embedded backend does: python -m")
    _, module, *command = shlex.split(answer.stderr.split("does: ")[1])
    subprocess.run([sys.executable, module, *command], check=True, cwd=ROOT, capture_output=True)
    events = {
        e["name"]: e for e in json.loads((tmp_path / "timeline.json").read_text())["traceEvents"] if e["pid"] == 1
    }
    # 64 bytes over 64 B/ns after 100 ns; then the all-reduce of ring neighbours takes its time on the network.
    assert (events["embedding.load_input"]["ts"], events["embedding"]["ts"]) == (0.0, 0.101)
    assert events["embedding.collective"]["dur"] > 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("only-one",), "error: 1 files are named; name 2: TRACE PREFIX"),
        (("/nowhere.txt", "x"), "error: /nowhere.txt: the trace does not exist; check the path"),
        (("--show", "/nowhere.et"), "error: /nowhere.et: the execution trace does not exist; check the path"),
        (("{orca}", "x", "--npu_num", "3"), "--npu_num: 3 NPUs cannot be split into 2 pipeline stages"),
        (("{orca}", "x", "--to", "orcas"), "unknown text trace format 'orcas'; did you mean orca?"),
        (("{orca}", "x", "--to", "event"), "--to: a trace of operators (orca) cannot be written as EVENT"),
        (("{orca}", "x", "--step", "2"), "--step: there is no step 2 in a trace of 1; give 0 .. 0"),
        (("{orca}", "x", "--network_dims", "2x2"), "--network_dims: '2x2' does not list the sizes of dimensions"),
        (
            ("--merge", "/nowhere", "x", "--system", "s.json"),
            "error: --system: merging simulates nothing; the embedded",
        ),
        (("--merge", "/nowhere", "x"), "error: /nowhere.0.et: there is no PREFIX.0.et"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], message: str, orca: Path) -> None:
    answer = run(*(argument.format(orca=orca) for argument in arguments), code=2)
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_help_is_quick_to_load() -> None:
    code = (
        "import sys; sys.argv = ['converters', '--help']\n"
        "from converters.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('numpy', 'google.protobuf', 'pydantic') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(samples.orca(groups=1)[:-200])
    answer = run(path, tmp_path / "out/g", "--npu_num", 2, code=2)
    assert "line 34: the row has 8 fields" in answer.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

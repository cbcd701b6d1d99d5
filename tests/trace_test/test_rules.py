"""Every rule holds for what the generator makes, and each is broken alone by a change that breaks just it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.chakra import read_graph, write_graph
from converters.execution_graph import ExecutionGraph, NodeType
from converters.lowering import lower
from converters.text import write_text_trace
from tests.converters import samples
from trace_gen.batch_shape import BatchShape, KVTransfer
from trace_gen.generator import TraceGenerator
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.precision import Precision
from trace_gen.trace import CommType, RowWork, Trace
from trace_gen.vocabulary import FUSED
from trace_test.__main__ import parser
from trace_test.random_batches import _WorkModel, random_subjects
from trace_test.rule import Findings, ModelFacts, Subject, rules, run_rules
from trace_test.subjects import Reading, of_trace, read_subject

ARCHITECTURE = load_model("Llama-3.1-8B")
MESH = Mesh(tensor=2, pipeline=2)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Llama on 2 x 2 ranks: two requests, one of which loads KV blocks while another's are evicted."""
    memory = ModelMemory(ARCHITECTURE, MESH)
    size = 64 * memory.kv_bytes_per_token_all_ranks
    batch = BatchShape(
        request_ids=np.array([4, 9]),
        new_tokens=np.array([100, 1]),
        context_tokens=np.array([0, 64]),
        samples=np.array([1, 1]),
        kv_loads=(KVTransfer(9, 4, 64, size),),
        kv_evictions=(KVTransfer(2, 4, 64, size),),
    )
    generator = TraceGenerator(ARCHITECTURE, MESH, _WorkModel(FUSED, "request"))
    return of_trace("test", generator.generate([batch]), ModelFacts(ARCHITECTURE, MESH, Precision(), (batch,)))


def row_of(trace: Trace, name: str, skip: int = 0) -> int:
    return [row for row in range(trace.rows) if trace.name(row) == name][skip]


def changed(trace: Trace, column: str, row: int, value: int) -> Trace:
    copy = getattr(trace, column).copy()
    copy[..., row] = value
    return replace(trace, **{column: copy})


def broken_by(subject: Subject, trace: Trace) -> Findings:
    return run_rules(of_trace("test", trace, subject.model))


def test_all_rules_hold_and_apply_to_a_generated_trace(subject: Subject) -> None:
    outcome = run_rules(subject)
    assert outcome.violations == {}
    assert outcome.skipped == []


def a_request_more(trace: Trace) -> Trace:
    return replace(trace, batch_requests=np.array([4, 9, 12]))


def wider_input(trace: Trace) -> Trace:
    row = row_of(trace, "act_fn")
    return changed(trace, "input_bytes", row, int(trace.input_bytes[row]) + 2)


def reduce_after_norm(trace: Trace) -> Trace:
    row = row_of(trace, "layernorm")
    bytes_ = int(trace.output_bytes[row])
    trace = changed(changed(trace, "comm_type", row, CommType.ALLREDUCE), "comm_group", row, 0)
    return changed(trace, "comm_bytes", row, bytes_)


def no_reduce(trace: Trace) -> Trace:
    row = row_of(trace, "o_proj")
    return changed(changed(trace, "comm_type", row, CommType.NONE), "comm_bytes", row, 0)


def halved_reduce(trace: Trace) -> Trace:
    row = row_of(trace, "down_proj")
    return changed(trace, "comm_bytes", row, int(trace.comm_bytes[row]) // 2)


def kv_of_one_rank(trace: Trace) -> Trace:
    row = row_of(trace, "kv_load")
    return changed(trace, "input_bytes", row, int(trace.input_bytes[row]) // 2)


def kv_of_a_stranger(trace: Trace) -> Trace:
    return changed(trace, "request", row_of(trace, "kv_load"), 77)


def missing_layer(trace: Trace) -> Trace:
    layer = trace.layer.copy()
    layer[layer == 31] = 40
    return replace(trace, layer=layer)


def stages_swapped(trace: Trace) -> Trace:
    # A row without weights or a collective, which other rules would miss in its stage.
    row = row_of(trace, "act_fn")
    return changed(changed(trace, "stage", row, 1), "rank_set", row, 1)


def no_time(trace: Trace) -> Trace:
    latency = trace.latency_ns
    latency[:, row_of(trace, "lm_head")] = 0
    return replace(trace, work=RowWork.by_row(latency, trace.flops, trace.mem_bytes))


def waits_for_a_later_row(trace: Trace) -> Trace:
    offsets = np.zeros(trace.rows + 1, dtype=np.int64)
    offsets[11:] = 1
    return replace(trace, dep_offsets=offsets, dep_rows=np.array([10], dtype=np.int64))


def other_stages_group(trace: Trace) -> Trace:
    return changed(trace, "comm_group", row_of(trace, "o_proj"), 1)


def weight_twice(trace: Trace) -> Trace:
    # A row that the model's table does not know, so that only the sum can tell.
    names = tuple("router" if name == "sampler" else name for name in trace.op_names)
    return changed(replace(trace, op_names=names), "weight_bytes", row_of(trace, "sampler"), 4096)


def wrong_width(trace: Trace) -> Trace:
    """Tokens counted twice, everywhere alike: sizes still fit each other, and not the model's number of tokens."""
    return replace(trace, input_bytes=_doubled(trace, "input"), output_bytes=_doubled(trace, "output"),
                   comm_bytes=2 * trace.comm_bytes)  # fmt: skip


def _doubled(trace: Trace, side: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    sizes = getattr(trace, f"{side}_bytes")
    result: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = np.where(trace.kind == 0, 2 * sizes, sizes)
    return result


BROKEN_TRACES = [
    ("attention-separated", a_request_more, "attention and the batch differ in request 12"),
    ("collectives-placed", reduce_after_norm, "an ALLREDUCE follows, but every rank has all it needs"),
    ("collectives-placed", no_reduce, "its output is a partial sum on every rank, but no collective follows"),
    ("collective-bytes", halved_reduce, "the collective carries"),
    ("model-shape", wrong_width, "its input is"),
    ("weights-add-up", weight_twice, "bytes of weights, but a rank holds"),
    ("kv-adds-up", kv_of_one_rank, "bytes of KV are loaded over all ranks, but the batch moves"),
    ("kv-adds-up", kv_of_a_stranger, "KV blocks are loaded that the batch does not move"),
    ("blocks-complete", missing_layer, "it is missing (layers 0 to 31 are expected)"),
    ("stage-order", stages_swapped, "after stage 1 has begun"),
    ("times", no_time, "it takes 0 ns; at least 1 is needed"),
    ("dependencies", waits_for_a_later_row, "it waits for row 10, which comes later"),
    ("group-members", other_stages_group, "runs it but is not in its communication group"),
]


@pytest.mark.parametrize(("rule", "breaks", "message"), BROKEN_TRACES)
def test_a_broken_trace_breaks_one_rule(
    subject: Subject, rule: str, breaks: Callable[[Trace], Trace], message: str
) -> None:
    assert subject.trace is not None
    outcome = broken_by(subject, breaks(subject.trace))
    assert list(outcome.violations) == [rule]
    assert any(message in found.what for found in outcome.violations[rule])


BROKEN_WITHOUT_A_MODEL = [
    ("input-matches-output", wider_input, "(L0.act_fn)"),
]


@pytest.mark.parametrize(("rule", "breaks", "where"), BROKEN_WITHOUT_A_MODEL)
def test_a_broken_trace_of_no_known_model(
    subject: Subject, rule: str, breaks: Callable[[Trace], Trace], where: str
) -> None:
    assert subject.trace is not None
    outcome = run_rules(of_trace("test", breaks(subject.trace), None))
    assert list(outcome.violations) == [rule]
    (found,) = outcome.violations[rule]
    assert found.where.endswith(where)


def changed_rank(graph: ExecutionGraph, kind: NodeType, column: str, value: int) -> ExecutionGraph:
    first, *others = graph.rank_graphs
    rows = np.flatnonzero(first.node_type == kind)
    copy = getattr(first, column).copy()
    copy[rows[0]] = value
    return ExecutionGraph([replace(first, **{column: copy}), *others], graph.groups)


def a_cycle(graph: ExecutionGraph) -> ExecutionGraph:
    first, *others = graph.rank_graphs
    index = first.dep_index.copy()
    index[0] = first.nodes - 1
    return ExecutionGraph([replace(first, dep_index=index), *others], graph.groups)


def a_rank_less(graph: ExecutionGraph) -> ExecutionGraph:
    first, *others = graph.rank_graphs
    return ExecutionGraph([replace(first, ranks=(5, *first.ranks[1:])), *others], {})


def one_rank_more_collective(graph: ExecutionGraph) -> ExecutionGraph:
    """Rank 0 parts from rank 1 and reduces fewer bytes."""
    first, *others = graph.rank_graphs
    size = first.comm_size.copy()
    size[np.flatnonzero(first.node_type == NodeType.COMM_COLL)[3]] += 8
    ranks = replace(first, ranks=first.ranks[:1], comm_size=size), replace(first, ranks=first.ranks[1:])
    return ExecutionGraph([*ranks, *others], graph.groups)


BROKEN_GRAPHS = [
    ("send-matches-recv", lambda graph: changed_rank(graph, NodeType.COMM_SEND, "comm_tag", 77), "with tag 77"),
    ("collective-order", one_rank_more_collective, "it runs ALL_REDUCE of"),
    ("acyclic", a_cycle, "wait for each other"),
]


@pytest.mark.parametrize(("rule", "breaks", "message"), BROKEN_GRAPHS)
def test_a_broken_graph_breaks_one_rule(
    subject: Subject, rule: str, breaks: Callable[[ExecutionGraph], ExecutionGraph], message: str
) -> None:
    assert subject.graph is not None
    outcome = run_rules(Subject("graph", graph=breaks(subject.graph)))
    assert list(outcome.violations) == [rule]
    assert message in outcome.violations[rule][0].what


def unreadable(tmp_path: Path) -> Subject:
    (tmp_path / "x.0.et").write_bytes(b"\xff\xff")
    return read_subject(str(tmp_path / "x.0.et"), Reading())


def without_rank_0(tmp_path: Path) -> Subject:
    return Subject("graph", graph=a_rank_less(lower(_idle_trace())))


BROKEN_SUBJECTS = [
    ("ranks-present", without_rank_0, "it is missing or occurs twice"),
    ("readable", unreadable, "x.0.et: byte 0: the file ends inside a length"),
]


@pytest.mark.parametrize(("rule", "make", "message"), BROKEN_SUBJECTS)
def test_a_subject_that_is_not_whole(rule: str, make: Callable[[Path], Subject], message: str, tmp_path: Path) -> None:
    outcome = run_rules(make(tmp_path))
    assert list(outcome.violations) == [rule]
    assert message in outcome.violations[rule][0].what


@pytest.fixture(scope="module")
def divided() -> Subject:
    """Two layers of Llama on TP 2 x CP 4, norms by token: a prompt on 24 tokens of context and two decodes."""
    batch = BatchShape(
        request_ids=np.array([4, 9, 2]),
        new_tokens=np.array([1000, 1, 1]),
        context_tokens=np.array([24, 64, 700]),
        samples=np.array([1, 1, 1]),
    )
    short = replace(ARCHITECTURE, runs=(replace(ARCHITECTURE.runs[0], repeats=2),))
    mesh = Mesh(2, context=4)
    generator = TraceGenerator(short, mesh, _WorkModel(FUSED, "batch"), sequence_parallel=True)
    return of_trace("test", generator.generate([batch]), ModelFacts(short, mesh, Precision(), (batch,)))


def resized(trace: Trace, row: int, factor: int) -> Trace:
    """Give a row that only communicates `factor` times the bytes."""
    for column in ("input_bytes", "output_bytes", "comm_bytes"):
        trace = changed(trace, column, row, int(getattr(trace, column)[row]) * factor)
    return trace


def whole_cache_passed(trace: Trace) -> Trace:
    return resized(trace, row_of(trace, "kv_pass", 2), 4)


def queries_gathered_twice(trace: Trace) -> Trace:
    row = row_of(trace, "query_gather")
    return changed(trace, "output_bytes", row, 2 * int(trace.output_bytes[row]))


def undivided_attention(trace: Trace) -> Trace:
    work = trace.work
    flops = work.flops.copy()
    flops[:, work.column[row_of(trace, "attention", 1)]] *= 4
    return replace(trace, work=replace(work, flops=flops))


def ring_out_of_step(trace: Trace) -> Trace:
    """The second block is passed on before it has come: it waits for what the first waits for."""
    row = row_of(trace, "kv_pass", 1)
    waits = trace.dep_rows.copy()
    waits[trace.dep_offsets[row]] -= 2
    return replace(trace, dep_rows=waits)


def ring_cut_short(trace: Trace) -> Trace:
    """The last block is called what it is not."""
    names = (*trace.op_names, "lse_gather_again")
    last = row_of(trace, "kv_pass", 2)
    return replace(trace, op_names=names, op=changed(trace, "op", last, len(names) - 1).op)


def norms_gathered_by_reducing(trace: Trace) -> Trace:
    row = row_of(trace, "sequence_gather")
    return changed(trace, "comm_type", row, CommType.REDUCESCATTER)


def part_of_a_sum_scattered(trace: Trace) -> Trace:
    row = row_of(trace, "sequence_scatter", 1)
    return resized(resized(trace, row, 2), row, 1)


def norm_of_all_tokens(trace: Trace) -> Trace:
    for row in (row_of(trace, "layernorm"), row_of(trace, "sequence_gather")):
        trace = changed(trace, "input_bytes", row, int(trace.input_bytes[row]) * 2)
    return trace


BROKEN_DIVIDED = [
    ("context-parallel", whole_cache_passed, "its input is 2097152 bytes, but 524288 is needed"),
    ("context-parallel", queries_gathered_twice, "its output is 16384 bytes, but 8192 is needed"),
    ("context-parallel", undivided_attention, "FLOPs a rank, but"),
    ("context-parallel", ring_out_of_step, "it waits for the rows (4,) before it, but (2,) is needed"),
    ("context-parallel", ring_cut_short, "attention where kv_pass is needed"),
    ("collectives-placed", norms_gathered_by_reducing, "an REDUCESCATTER, but ALLGATHER is expected"),
    ("collectives-placed", part_of_a_sum_scattered, "but no sequence_scatter follows it"),
    ("model-shape", norm_of_all_tokens, "its input is"),
]


@pytest.mark.parametrize(("rule", "breaks", "message"), BROKEN_DIVIDED)
def test_a_broken_trace_of_divided_sequences_breaks_its_rule(
    divided: Subject, rule: str, breaks: Callable[[Trace], Trace], message: str
) -> None:
    assert run_rules(divided).violations == {}
    assert divided.trace is not None
    outcome = broken_by(divided, breaks(divided.trace))
    assert rule in outcome.violations
    if rule == "context-parallel":
        assert set(outcome.violations) - {"blocks-complete"} == {rule}
    assert message in outcome.violations[rule][0].what


@pytest.mark.parametrize("known", [False, True])
def test_divided_sequences_keep_their_rules_through_text(divided: Subject, known: bool, tmp_path: Path) -> None:
    """Without the batch the order and the dependencies of the ring are checked."""
    assert divided.trace is not None
    assert divided.model is not None
    model = divided.model if known else replace(divided.model, batches=())
    write_text_trace(divided.trace, tmp_path / "trace.txt")
    read = read_subject(str(tmp_path / "trace.txt"), Reading()).trace
    assert read is not None
    assert run_rules(of_trace("text", read, model)).violations == {}
    broken = run_rules(of_trace("text", ring_out_of_step(read), model))
    assert list(broken.violations) == ["context-parallel"]


def test_every_rule_has_a_test_that_breaks_it() -> None:
    """The tables are those that the tests above go through, and each of them checks that its rule alone is broken."""
    tables = (BROKEN_TRACES, BROKEN_WITHOUT_A_MODEL, BROKEN_GRAPHS, BROKEN_SUBJECTS, BROKEN_DIVIDED)
    assert {case[0] for table in tables for case in table} == set(rules)


def _idle_trace() -> Trace:
    from tests.converters.traces import Row, make_trace

    return make_trace([Row("a", (0, 1)), Row("b", (0, 1))])


def test_random_batches_of_every_kind_hold() -> None:
    names = []
    for found in random_subjects(40, seed=11):
        names.append(found.source)
        assert run_rules(found).violations == {}, found.source
    again = [found.source for found in random_subjects(40, seed=11)]
    assert names == again, "the same seed makes the same batches"


def test_a_trace_keeps_its_rules_through_text_and_et(subject: Subject, tmp_path: Path) -> None:
    assert subject.trace is not None
    assert subject.graph is not None
    write_text_trace(subject.trace, tmp_path / "trace.txt")
    outcome = run_rules(read_subject(str(tmp_path / "trace.txt"), Reading()))
    assert outcome.violations == {}
    assert outcome.skipped == [], "the text says which model it is"
    write_graph(subject.graph, tmp_path / "llm")
    assert run_rules(Subject("et", graph=read_graph(tmp_path / "llm"))).violations == {}


@pytest.mark.parametrize("name", [name for name in samples.SAMPLES if "event" not in name])
def test_the_fields_texts_hold(name: str, tmp_path: Path) -> None:
    (tmp_path / "trace.txt").write_text(samples.SAMPLES[name])
    assert run_rules(read_subject(str(tmp_path / "trace.txt"), Reading(4))).violations == {}


@pytest.mark.parametrize("marker", ["ATTENTION 1", "ATTENTION 2"])
def test_a_row_deleted_from_a_text_by_hand_is_one_mistake(marker: str, tmp_path: Path) -> None:
    """The row numbers in the names that follow are then out of step, which hides no operator."""
    lines = samples.orca(requests=3).splitlines(keepends=True)
    lines.remove(next(line for line in lines if line.startswith(marker)))
    lines[1] = f"{len(lines) - 3}\n"
    (tmp_path / "trace.txt").write_text("".join(lines))
    outcome = run_rules(read_subject(str(tmp_path / "trace.txt"), Reading(4)))
    assert set(outcome.violations) == {"attention-separated"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trace_test", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


def test_the_command_names_file_row_rule_and_cause(subject: Subject, tmp_path: Path) -> None:
    assert subject.trace is not None
    path = tmp_path / "bad.txt"
    write_text_trace(no_reduce(subject.trace), path)
    answer = run(str(path))
    assert answer.returncode == 1
    line, cause = answer.stdout.splitlines()[:2]
    assert line.startswith(f"{path}: row ")
    assert "(L0.o_proj): collectives-placed: its output is a partial sum on every rank" in line
    assert cause.startswith("    likely cause: a collective attached to the neighbouring operator")


def test_the_command_lists_rules_and_checks_random_batches() -> None:
    listed = run("--list-rules")
    assert listed.returncode == 0
    assert all(f"{name} (needs a " in listed.stdout for name in rules)
    answer = run("--random", "3", "--seed", "5")
    assert (answer.returncode, answer.stdout) == (0, "3 checked, all rules hold\n")


def test_the_lowest_request_that_is_missing_is_named(subject: Subject) -> None:
    assert subject.trace is not None
    said = broken_by(subject, replace(subject.trace, batch_requests=np.array([4, 9, 33, 12])))
    (violation,) = said.violations["attention-separated"][:1]
    assert violation.what == "attention and the batch differ in request 12"


def test_random_batches_are_those_of_seed_0_unless_another_is_asked_for() -> None:
    assert parser().parse_args(["--random", "3"]).seed == 0


def test_a_folder_is_all_traces_in_it(subject: Subject, tmp_path: Path) -> None:
    assert subject.trace is not None
    assert subject.graph is not None
    for name in ("a", "b"):
        write_graph(subject.graph, tmp_path / name)
        write_text_trace(subject.trace, tmp_path / f"{name}.txt")
    answer = run(str(tmp_path))
    assert (answer.returncode, answer.stdout.splitlines()[-1]) == (
        0,
        "4 checked, no rule that could be checked is violated",
    )


@pytest.mark.parametrize("arguments", [(), ("--random", "0"), ("/nowhere/x.0.et",)])
def test_wrong_usage_is_one_line(arguments: tuple[str, ...]) -> None:
    answer = run(*arguments)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1

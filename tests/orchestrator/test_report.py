"""The HTML report and the timeline of a run: whole, true to the summary, repeatable, honest about what is missing."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dying_backend import DyingBackend, register

from foundation.commands import run_command
from orchestrator.commands.run import simulate
from orchestrator.observers.history import DECODE, MIXED, PREFILL, History, kind_of
from orchestrator.report import chrome_trace
from orchestrator.report.chrome_trace import write_chrome_trace
from orchestrator.report.files import _named
from orchestrator.statistics import STATISTICS
from tests.orchestrator.serving import Run, scheduler

VOID = {"meta", "line", "rect", "polyline", "polygon", "br"}
SECTIONS = ["latency", "over-time", "simulated-time", "run", "configuration", "terms"]
ROWS = [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)]


class Page(HTMLParser):
    """Reads a page: fails on tags that do not match, keeps tables, sections, charts, and whatever names a resource."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.charts: list[str] = []
        self.alerts = 0
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "data", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(str(named["id"]))
        if tag == "table":
            self.tables[str(named["id"])] = []
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag in ("th", "td"):
            list(self.tables.values())[-1][-1].append("")
        if tag == "figure":
            self.charts.append(str(named["aria-label"]))
        self.alerts += named.get("role") == "alert"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            list(self.tables.values())[-1][-1][-1] += data


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return path


def gpt2(dataset: Path, folder: Path, *flags: str) -> Path:
    arguments = [
        "--model_name",
        "openai-community/gpt2",
        "--dataset",
        str(dataset),
        "--output",
        str(folder / "out.csv"),
    ]
    assert simulate([*arguments, *flags]) == 0
    return folder


def page(folder: Path) -> Page:
    return Page((folder / "out-report.html").read_text(encoding="utf-8"))


def trace(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "out-trace.json").read_text())
    return loaded


def slices(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[tuple[int, int, str]]]:
    """Return the slices of each track as (begin, end, name) in ns, in the order of the file."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            begin, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
            tracks[event["pid"], event["tid"]].append((begin, begin + length, event["name"]))
    return tracks


def check_nested(track: list[tuple[int, int, str]]) -> None:
    """Fail unless the slices of a track are in order of time and each lies within or after the one before."""
    assert [begin for begin, _, _ in track] == sorted(begin for begin, _, _ in track)
    within: list[int] = []
    for begin, end, name in track:
        while within and within[-1] <= begin:
            within.pop()
        assert begin <= end and (not within or end <= within[-1]), name
        within.append(end)


def test_the_page_is_whole_and_stands_alone(tmp_path: Path, dataset: Path) -> None:
    shown = page(gpt2(dataset, tmp_path))
    assert shown.sections == SECTIONS
    assert shown.links == [] and "url(" not in (tmp_path / "out-report.html").read_text()
    assert shown.alerts == 0
    for chart in ("TTFT", "TPOT", "ITL", "End-to-end", "Throughput", "Requests", "KV cache", "engine's", "request's"):
        assert any(chart in label for label in shown.charts), chart
    assert re.findall(r"\bnan\b|\binf\b", shown.text, flags=re.IGNORECASE) == []


def test_a_narrow_screen_loses_nothing(tmp_path: Path, dataset: Path) -> None:
    """Text has its size on every screen, and a cell of a table that is laid out in lines says its column."""
    text = (gpt2(dataset, tmp_path) / "out-report.html").read_text()
    assert "<text" not in text and "min-width" not in text and "@media (max-width: 640px)" in text
    table = text[text.index('<table id="latency-table"') :]
    row = table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))]
    named = re.findall(r'data-(?:unit|name)="([^"]+)"', row)
    assert named == ["ms", "mean", "P50", "P90", "P95", "P99", "P99.9"] and row.count("<td") == len(named)


@pytest.mark.parametrize("flags", ["", "--scheduling vllm", "--npu_num 4 --npu_group 4", "--npu_mem 0.256"])
def test_the_pages_figures_are_the_summarys(tmp_path: Path, dataset: Path, flags: str) -> None:
    if "--npu_mem" in flags:
        dataset.write_text("20\t60\t0\n" * 4)
    shown = page(gpt2(dataset, tmp_path, *flags.split()))
    summary = json.loads((tmp_path / "out-summary.json").read_text())
    names = ("ttft_ms", "tpot_ms", "itl_ms", "latency_ms", "queuing_delay_ms")
    for name, row in zip(names, shown.tables["latency-table"][1:], strict=True):
        figures = summary[name]
        assert [float(cell) for cell in row[1:]] == [round(figures[key], 3) for key in STATISTICS]
    engine = shown.tables["engine-time"]
    assert sum(float(row[1]) for row in engine[1:]) == pytest.approx(summary["makespan_s"], abs=0.003)
    for column, total in ((3, "iterations"), (5, "prompt_tokens"), (6, "generated_tokens")):
        assert sum(int(row[column]) for row in engine[1:-1]) == summary[total]
    request = shown.tables["request-time"]
    assert sum(float(row[1]) for row in request[1:]) == pytest.approx(summary["latency_ms"]["mean"], abs=0.003)
    run = {row[0]: row[1] for row in shown.tables["run-table"][1:]}
    assert run["makespan"] == f"{summary['makespan_s']:.3f} s"
    assert run["generation throughput"] == f"{summary['generated_tokens_per_s']:.2f} tokens/s"
    assert f"{summary['peak_kv_blocks']} of {summary['kv_blocks']} blocks" in run["peak KV use"]
    assert run["evicted to host memory"].startswith(f"{summary['evictions']} requests")


def test_the_settings_are_shown_with_their_meaning(tmp_path: Path, dataset: Path) -> None:
    shown = page(gpt2(dataset, tmp_path, "--npu_num", "2", "--link_latency", "500"))
    given = {row[0]: row[1:] for row in shown.tables["given"][1:]}
    assert set(given) == {"--model_name", "--npu_num", "--link_latency", "--dataset"}
    assert given["--link_latency"] == ["500.0", "latency of a link, ns"]
    defaults = {row[0] for row in shown.tables["defaults"][1:]}
    assert "--scheduling" in defaults and "--output" not in defaults


@pytest.mark.parametrize("stages", ["1", "2"])
def test_the_same_run_gives_the_same_bytes(tmp_path: Path, dataset: Path, stages: str) -> None:
    flags = ["--npu_num", stages, "--npu_group", stages]
    first, second = (gpt2(dataset, tmp_path / name, *flags) for name in ("a", "b"))
    for name in ("out-report.html", "out-trace.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_page_does_not_depend_on_the_way_to_the_results(tmp_path: Path, dataset: Path) -> None:
    pages = [
        (gpt2(dataset, tmp_path / str(index), *way.split()) / "out-report.html").read_bytes()
        for index, way in enumerate(("", "--macro_steps 1", "--interface text", "--cross_check embedded"))
    ]
    assert set(pages) == {pages[0]}


def test_no_report_writes_neither(tmp_path: Path, dataset: Path) -> None:
    gpt2(dataset, tmp_path / "new", "--no_report")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert "out-summary.json" in names and not names & {"out-report.html", "out-trace.json"}


def test_names_are_escaped(tmp_path: Path, dataset: Path) -> None:
    odd = dataset.rename(tmp_path / "<script>&.tsv")
    shown = page(gpt2(odd, tmp_path))
    assert "<script>&.tsv" in shown.text
    assert trace(tmp_path)["otherData"]["complete"] is True


@pytest.mark.parametrize("flags", ["--npu_num 1", "--npu_num 3 --npu_group 3", "--scheduling vllm", "--npu_mem 0.256"])
def test_slices_are_nested_and_true_to_the_files(tmp_path: Path, dataset: Path, flags: str) -> None:
    if "--npu_mem" in flags:
        dataset.write_text("20\t60\t0\n" * 4)
    events = trace(gpt2(dataset, tmp_path, *flags.split()))["traceEvents"]
    tracks = slices(events)
    for track in tracks.values():
        check_nested(track)
    stages = int(flags.split()[-1]) if "npu_group" in flags else 1
    engine = {
        event["args"]["name"]: tracks[chrome_trace.ENGINE, event["tid"]]
        for event in events
        if event["name"] == "thread_name" and event["pid"] == chrome_trace.ENGINE
    }
    names = [f"stage {stage}" for stage in range(stages)] if stages > 1 else ["iterations"]
    assert list(engine) == names
    for earlier, later in pairwise(engine.values()):
        assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(earlier, later, strict=True)), "stages follow"
    summary = json.loads((tmp_path / "out-summary.json").read_text())
    assert max(end for _, end, _ in engine[names[-1]]) == round(summary["makespan_s"] * 1e9)
    decodes = r"decode x \d+ steps, \d+ requests" if stages == 1 else r"decode, \d+ requests"
    assert any(re.match(decodes, name) for _, _, name in engine[names[0]])
    table = pd.read_csv(tmp_path / "out.csv").set_index("request id")
    spans = {name: (begin, end) for (pid, _), track in tracks.items() if pid == chrome_trace.REQUESTS
             for begin, end, name in track if name.startswith("request")}  # fmt: skip
    assert spans == {f"request {i}": (row["arrival"], row["end_time"]) for i, row in table.iterrows()}
    total = dict.fromkeys(("waiting", "prefill", "decode"), 0)
    for (pid, _), track in tracks.items():
        for begin, end, name in track if pid == chrome_trace.REQUESTS else ():
            if name in total:
                total[name] += end - begin
    assert total["waiting"] == table["queuing_delay"].sum()
    assert total["prefill"] == (table["first_token"] - table["scheduled"]).sum()
    assert total["decode"] == (table["end_time"] - table["first_token"]).sum()


def test_a_phase_that_takes_no_time_has_no_slice(tmp_path: Path) -> None:
    path = tmp_path / "short.tsv"
    path.write_text("20\t1\t0\n20\t2\t0\n")  # the first answer ends with its first token; neither prompt waits
    tracks = slices(trace(gpt2(path, tmp_path))["traceEvents"])
    phases = [[name for *_, name in track] for (pid, _), track in tracks.items() if pid == chrome_trace.REQUESTS]
    assert phases == [["request 0", "prefill"], ["request 1", "prefill", "decode"]]


def test_counters_are_in_order_and_end_at_nothing(tmp_path: Path, dataset: Path) -> None:
    events = trace(gpt2(dataset, tmp_path))["traceEvents"]
    counters = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            counters[event["name"]].append((event["ts"], event["args"]["value"]))
    assert {"running (requests)", "KV cache in use (%)"} <= set(counters)
    for points in counters.values():
        assert [ts for ts, _ in points] == sorted(ts for ts, _ in points)
        assert points[-1][1] == 0
    summary = json.loads((tmp_path / "out-summary.json").read_text())
    peak = 100 * summary["peak_kv_blocks"] / summary["kv_blocks"]
    assert max(value for _, value in counters["KV cache in use (%)"]) == pytest.approx(peak, rel=1e-4)


def test_a_long_run_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, history = Run(scheduler("orca", 100), [(9, 5, 400 * i) for i in range(20)]), History(most=7)
    for done in run.batches:
        history.batch(done)
    monkeypatch.setattr(chrome_trace, "MOST_REQUESTS", 6)
    path = tmp_path / "trace.json"
    with path.open("w") as stream:
        write_chrome_trace(stream, "t", run.result(), history)
    written = json.loads(path.read_text())
    notes = written["otherData"]["notes"]
    assert f"only the first 7 of {len(run.batches)} batches are shown" in notes
    assert "only the first 6 of 20 requests, by arrival, are shown" in notes
    tracks = slices(written["traceEvents"])
    assert len(tracks[chrome_trace.ENGINE, 1]) == 7
    assert sum(name.startswith("request") for track in tracks.values() for _, _, name in track) == 6
    assert sum(totals.iterations for totals in history.kinds.values()) == run.metrics.totals.iterations


@pytest.mark.parametrize(
    ("prefills", "requests", "kind"), [(0, 3, DECODE), (1, 3, MIXED), (3, 3, PREFILL), (1, 1, PREFILL)]
)
def test_iterations_are_told_apart_by_what_they_compute(prefills: int, requests: int, kind: str) -> None:
    assert kind_of(prefills, requests) == kind


def test_the_engines_time_is_divided_by_kind_of_iteration(tmp_path: Path, dataset: Path) -> None:
    """A prompt alone, then its decodes, then a prompt beside a decode: one iteration each of the first and the last."""
    dataset.write_text("100\t9\t0\n50\t2\t3000000\n")
    engine = {row[0]: row[1:] for row in page(gpt2(dataset, tmp_path)).tables["engine-time"][1:]}
    assert (engine["prefill"][2], engine["prefill"][4]) == ("1", "100")
    assert (engine["prefill and decode"][2], engine["prefill and decode"][4]) == ("1", "50")
    assert (engine["decode"][4], int(engine["decode"][2]) > 5) == ("0", True)
    assert engine["no iteration"][2:] == ["-", "-", "-", "-"]


class Dying(DyingBackend):
    message = 'the "process" was <killed>'


def test_a_failure_in_mid_run_leaves_both_marked(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, "dying", Dying)
    flags = ["--model_name", "openai-community/gpt2", "--dataset", str(dataset), "--macro_steps", "1"]
    code = run_command(lambda: simulate([*flags, "--backend", "dying", "--output", str(tmp_path / "out.csv")]))
    assert code == 1 and "killed" in capsys.readouterr().err
    shown = page(tmp_path)
    assert shown.alerts == 1 and shown.sections == SECTIONS
    assert "Incomplete." in shown.text and 'the "process" was <killed>' in shown.text
    written = trace(tmp_path)
    assert written["otherData"]["complete"] is False and "<killed>" in written["otherData"]["error"]
    assert any(event["ph"] == "i" and event["name"].startswith("incomplete") for event in written["traceEvents"])
    names = [name for track in slices(written["traceEvents"]).values() for _, _, name in track]
    assert any(name.endswith("(unfinished)") for name in names)
    for track in slices(written["traceEvents"]).values():
        check_nested(track)


def test_a_run_in_which_nothing_finished_has_a_page(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dying, "lifetime", 0)
    register(monkeypatch, "dying", Dying)
    flags = ["--model_name", "openai-community/gpt2", "--dataset", str(dataset), "--backend", "dying"]
    assert run_command(lambda: simulate([*flags, "--output", str(tmp_path / "out.csv")])) == 1
    shown = page(tmp_path)
    assert shown.alerts == 1 and shown.sections == SECTIONS
    assert slices(trace(tmp_path)["traceEvents"]) == {}


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ((3,), "engine 3"),
        ((1, 2), "engines 1 to 2"),
        ((0, 2), "engines 0, 2"),
        ((0, 1, 2, 4), "engines 0, 1, 2, 4"),
        ((0, 1, 2, 4, 5), "engines 0, 1, 2, 4, ..."),
    ],
)
def test_engines_of_a_kind_are_named(places: tuple[int, ...], said: str) -> None:
    assert _named(places) == said

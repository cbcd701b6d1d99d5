"""What the real ASTRA-sim binaries answered: our own cases (golden.json), and the shared corpus where it is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import analytical_cases as cases
import numpy as np
import pytest

from analytical import __main__ as command
from analytical.embedded import create
from analytical.output.statistics import rank_statistics
from converters.chakra import read_graph, write_graph
from foundation.errors import OrreryError

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SHARED = Path(os.environ.get("ORRERY_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "corpus" / "astra_sim"
CORPUS = sorted(SHARED.iterdir()) if SHARED.is_dir() else []
VARIANTS = ("unaware", "aware")


@pytest.mark.parametrize("golden", GOLDEN, ids=[golden["name"] for golden in GOLDEN])
def test_golden(golden: dict[str, Any]) -> None:
    """Cycles, exposed communication and statistics of every rank, and the order in which ranks finish."""
    case = golden["case"]
    backend = cases.backend(case, congestion=VARIANTS[golden["aware"]])
    graph = cases.graph(case)
    expected = {rank: (cycles, exposed) for rank, cycles, exposed in golden["expected"]}
    assert {rank: (f, e % 2**64) for rank, (f, e) in backend.simulate(graph).by_rank().items()} == expected

    simulation = backend.events.run_step(graph, solve=False)
    assert [run.rank for run in simulation.finish_order] == [rank for rank, _, _ in golden["expected"]]
    for run in simulation.rank_runs:
        printed = golden["statistics"].get(str(run.rank))
        start, end = np.array(run.start), np.array(run.end)
        statistics = rank_statistics(run.program, 0, start, end, backend.machine.system)
        assert printed is None or sorted(statistics.lines()) == printed


@pytest.mark.parametrize(
    ("loggp", "size", "ends"),
    [
        ((5, 1, 2, 0.01), 4096, [6612, 8952, 7873, 8952]),
        ((40, 3, 20, 0.0), 70001, [64334, 62459, 64334, 58841, 64334, 62459, 64334, 55223]),
        ((0, 2, 9, 0.5), 1000, [14353, 18820, 17553, 18820, 15953, 18820, 17553, 18820]),
    ],
)
def test_trees_over_a_shared_bus(loggp: tuple[float, ...], size: int, ends: list[int]) -> None:
    """Held as they were when some thousand random cases, such buses and trees among them, agreed with the binaries."""
    case = cases.healthy()
    compute, collective = case["ranks"][0]
    case["ranks"] = [
        [compute | {"num_ops": 5500 + 37000 * rank}, collective | {"comm_size": size}] for rank in range(len(ends))
    ]
    case["network"]["npus_count"] = [len(ends)]
    case["system"] |= dict(zip("LogG", loggp, strict=True)) | {"model-shared-bus": 1, "local-reduction-delay": 3}
    case["system"]["all-reduce-implementation"] = ["doubleBinaryTree"]
    answer = cases.backend(case).simulate(cases.graph(case)).by_rank()
    assert [answer[rank][0] for rank in range(len(ends))] == ends


@pytest.mark.parametrize(
    ("kind", "algorithm", "size", "chunks", "loggp", "ends"),
    [
        ("all-reduce", "ring", 400_000, (32, 16), (5, 1, 20, 0.01), [22609, 22612, 22619, 22576]),
        (
            *("all-to-all", "direct", 900_001, (32, 32), (0, 2, 9, 0.5)),
            [815671, 815674, 815677, 815680, 815683, 815686, 815689, 815692],
        ),
        (
            *("all-reduce", "direct", 90_001, (4, 4), (0, 2, 90, 0.05)),
            [23388, 23214, 23205, 23346, 23382, 23385, 23615, 23531],
        ),
    ],
)
def test_sides_of_a_shared_bus_give_way(
    kind: str, algorithm: str, size: int, chunks: tuple[int, int], loggp: tuple[float, ...], ends: list[int]
) -> None:
    """As above, where many packets wait on both sides of the bus: after some in a row the other side may send."""
    case = cases.healthy()
    compute, collective = case["ranks"][0]
    collective |= {"comm_size": size, "comm_type": kind.upper().replace("-", "_")}
    case["ranks"] = [[compute | {"num_ops": 5500 + 3000 * rank}, collective] for rank in range(len(ends))]
    case["network"]["npus_count"] = [len(ends)]
    case["system"] |= dict(zip("LogG", loggp, strict=True)) | {"model-shared-bus": 1, "local-reduction-delay": 3}
    splits, active = chunks
    case["system"] |= {"preferred-dataset-splits": splits, "active-chunks-per-dimension": active}
    case["system"][f"{kind}-implementation"] = [algorithm]
    answer = cases.backend(case).simulate(cases.graph(case)).by_rank()
    assert [answer[rank][0] for rank in range(len(ends))] == ends


@pytest.mark.parametrize("golden", GOLDEN[::6], ids=[golden["name"] for golden in GOLDEN[::6]])
def test_golden_through_files(golden: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line prints what the binary printed, line for line in its order."""
    case = golden["case"]
    written = write_graph(cases.graph(case), tmp_path / "trace")
    arguments = _arguments(case["options"], VARIANTS[golden["aware"]])
    for flag, name, text in (
        ("network", "network.yml", cases.network_text(case)),
        ("system", "system.json", json.dumps(case["system"])),
        ("remote-memory", "memory.json", json.dumps(case["memory"])),
    ):
        (tmp_path / name).write_text(text)
        arguments.append(f"--{flag}-configuration={tmp_path / name}")
    arguments.append(f"--workload-configuration={tmp_path / 'trace'}")
    if written.groups:
        arguments.append(f"--comm-group-configuration={written.groups}")
    assert command.main(arguments) == 0
    assert _finished(capsys.readouterr().out) == golden["expected"]


@pytest.mark.skipif(not CORPUS, reason="the shared corpus of ASTRA-sim cases is not here")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("folder", CORPUS, ids=[folder.name for folder in CORPUS])
def test_corpus(folder: Path, variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every case that the binary completed gives its figures, in memory and on the command line; others are refused."""
    expected = json.loads((folder / "expected.json").read_text())
    groups = folder / "comm_group.json" if (folder / "comm_group.json").exists() else None
    options = dict(argument.lstrip("-").split("=") for argument in expected["args"])
    arguments = [
        f"--workload-configuration={folder / 'trace'}",
        f"--system-configuration={folder / 'system.json'}",
        f"--remote-memory-configuration={folder / 'memory.json'}",
        f"--network-configuration={folder / 'network.yml'}",
        *([f"--comm-group-configuration={groups}"] if groups else []),
        *_arguments(options, variant),
    ]
    if not expected[variant]["complete"]:
        with pytest.raises(OrreryError):
            command.main(arguments)
        with pytest.raises(OrreryError):
            _in_memory(folder, groups, options, variant, expected["npus"])
        return
    figures = {int(rank): (own["cycles"], own["exposed"]) for rank, own in expected[variant]["per_npu"].items()}
    assert _in_memory(folder, groups, options, variant, expected["npus"]) == figures
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert {rank: (cycles, exposed) for rank, cycles, exposed in _finished(out)} == figures
    for rank, statistics in expected[variant]["stats"].items():
        for name in ("Wall time", "GPU time", "Comm time", "Total compute-communication overlap"):
            if name in statistics:
                assert f"sys[{rank}], {name}: {statistics[name]}" in out


def _in_memory(
    folder: Path, groups: Path | None, options: dict[str, str], variant: str, npus: int
) -> dict[int, tuple[int, int]]:
    backend = create(
        network=(folder / "network.yml").read_text(),
        system=(folder / "system.json").read_text(),
        memory=(folder / "memory.json").read_text(),
        options={name.replace("-", "_"): value for name, value in options.items()} | {"congestion": variant},
    )
    return backend.simulate(read_graph(folder / "trace", npus, groups)).by_rank()


def _arguments(options: dict[str, str], variant: str) -> list[str]:
    named = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return [*named, f"--congestion={variant}"]


def _finished(out: str) -> list[list[int]]:
    """Return [rank, cycles, exposed] of the lines of a run, in their order."""
    lines = [line for line in out.splitlines() if " finished, " in line]
    words = [line.replace("[", " ").replace("]", " ").split() for line in lines]
    return [[int(row[row.index("sys") + 1]), int(row[row.index("cycles,") - 1]), int(row[-2])] for row in words]

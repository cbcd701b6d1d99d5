"""Fabrics: what ships, curves between and beyond their points, and output of nccl-tests; wrong files are in a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.cluster.nodes import load_node, shipped_nodes
from orchestrator.fabrics.fabric import COLLECTIVES, SHARE, Fabric, whole
from orchestrator.fabrics.reading import load_fabric, shipped_fabrics
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware

HEAD = """# nThread 1 nGpus 4 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1
#
# Using devices
#  Rank  0 Group  0 Pid  1234 on       host device  0 [0x01] NVIDIA A40
#  Rank  1 Group  0 Pid  1234 on       host device  1 [0x02] NVIDIA A40
#  Rank  2 Group  0 Pid  1234 on       host device  2 [0x03] NVIDIA A40
#  Rank  3 Group  0 Pid  1234 on       host device  3 [0x04] NVIDIA A40
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
ROWS = """   0             0     float     sum      -1     0.21    0.00    0.00      0     0.20    0.00    0.00      0
        1024           256     float     sum      -1    11.50    0.09    0.13      0    11.30    0.09    0.14      0
host:1234:1250 [0] NCCL INFO comm 0x1 rank 0 nranks 4
     1048576        262144     float     sum      -1    91.25   11.49   17.24    N/A    90.00   11.65   17.48    N/A
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 8.7
"""


def test_what_ships_is_whole_and_sourced() -> None:
    names = set(shipped_fabrics())
    assert len(names) >= 8
    for name in names:
        fabric = load_fabric(name)
        assert fabric.name == name and set(fabric.curves) == set(COLLECTIVES)
        assert all(len(source) > 40 for source in fabric.sources.values()) and "aiconfigurator" in fabric.origin
        for by_ranks in fabric.curves.values():
            for curve in by_ranks.values():
                assert curve.source in fabric.sources and len(curve.sizes) > 10
                assert list(curve.ns) == sorted(curve.ns), "no larger message beats a smaller one"
    named = {load_hardware(str(path)).fabric for path in HARDWARE_FOLDER.glob("*.json")}
    named |= {load_node(name).fabric for name in shipped_nodes()}
    assert named - {None} <= names
    assert load_fabric("H100 NVLink").name == "h100-nvlink"


def test_measured_rows_come_out_as_they_are() -> None:
    """Of the tables themselves: 1 MiB over 2 and 8 GPUs, ns."""
    size = np.array([2**20])
    assert load_fabric("rtxpro6000-pcie5-host").times_ns("all_reduce", 2, size) == [91519]
    assert load_fabric("rtxpro6000-pcie5-peer").times_ns("all_reduce", 2, size) == [30146]
    assert load_fabric("h100-nvlink").times_ns("all_reduce", 8, size) == [14823]


def fabric_of(**curves: dict[int, list[tuple[int, float]]]) -> Fabric:
    made = {name: {n: whole(points, "") for n, points in by_ranks.items()} for name, by_ranks in curves.items()}
    return Fabric("mine", "mine", "me", made, {})


def test_between_points_beyond_them_and_between_ranks() -> None:
    fabric = fabric_of(all_reduce={2: [(100, 1000), (200, 1500), (400, 1600)], 8: [(100, 4000)]})
    assert fabric.times_ns("all_reduce", 2, np.array([1, 100, 150, 400, 1400])).tolist() == [
        1000,
        1000,
        1250,
        1600,
        2100,
    ]
    assert fabric.times_ns("all_reduce", 8, np.array([50, 100, 300])).tolist() == [4000, 4000, 12000]
    assert fabric.times_ns("all_reduce", 4, np.array([100])).tolist() == [2000], "the geometric mean"
    assert fabric.times_ns("all_gather", 2, np.array([100])).tolist() == [round(1000 * SHARE)]
    assert fabric.derives("all_gather") and not fabric.derives("all_reduce")
    assert not fabric.lacks("all_to_all", 3) and "over 2 to 8 ranks, not over 16" in fabric.lacks("all_reduce", 16)
    assert "no curve for all_reduce" in fabric_of(all_gather={2: [(1, 1)]}).lacks("all_reduce", 2)
    assert fabric.least_ns("all_reduce", 2) == 1000


@given(st.sampled_from(sorted(shipped_fabrics())), st.sampled_from(COLLECTIVES), st.integers(2, 8), st.data())
def test_more_bytes_never_take_less(name: str, collective: str, ranks: int, data: st.DataObject) -> None:
    fabric = load_fabric(name)
    if fabric.lacks(collective, ranks):
        assert name == "gb200-nvlink" and ranks > 4
        return
    sizes = np.array(sorted(data.draw(st.lists(st.integers(1, 2**34), min_size=2, max_size=20))))
    times = fabric.times_ns(collective, ranks, sizes)
    assert (np.diff(times) >= 0).all() and times[0] >= fabric.least_ns(collective, ranks)


def test_output_of_nccl_tests_is_read(tmp_path: Path) -> None:
    path = tmp_path / "all_reduce.txt"
    path.write_text("srun: job 7 queued\n" + HEAD + ROWS)
    fabric = load_fabric(str(path))
    assert fabric.curves["all_reduce"][4].sizes == (1024, 2**20)
    assert fabric.curves["all_reduce"][4].ns == (11500, 91250), "out of place"


def test_a_folder_and_several_runs_of_it_are_one_fabric(tmp_path: Path) -> None:
    """Newer programs say which they are; a size that comes again counts with its least time."""
    again = ROWS.replace("91.25", "90.75")
    (tmp_path / "a.log").write_text("# Collective test starting: alltoall_perf\n" + HEAD + ROWS + again)
    two = "\n".join(line for line in HEAD.splitlines() if not line.startswith(("#  Rank  2", "#  Rank  3"))) + "\n"
    (tmp_path / "b_reduce_scatter.out").write_text(HEAD + ROWS + two + ROWS)
    (tmp_path / "notes.md").write_text("nothing of it")
    fabric = load_fabric(str(tmp_path))
    assert {name: sorted(by_ranks) for name, by_ranks in fabric.curves.items()} == {
        "all_to_all": [4],
        "reduce_scatter": [2, 4],
    }
    assert fabric.curves["all_to_all"][4].ns == (11500, 90750)
    (tmp_path / "c_reduce_scatter.txt").write_text(HEAD + ROWS)
    with pytest.raises(UserError, match=r"c_reduce_scatter.txt, line 1: reduce_scatter over 4 ranks is in b_reduce"):
        load_fabric(str(tmp_path))


def test_all_that_is_wrong_in_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    wrong = [
        {"collective": "all_reduced", "ranks": 2, "points": [[1, 1]]},
        {"collective": "all_reduce", "ranks": 1, "points": [[1, 1]], "source": "hearsay"},
        {"collective": "all_reduce", "ranks": 4, "points": [[10, 1], [5, 2]]},
    ]
    path.write_text(json.dumps({"curves": wrong}))
    with pytest.raises(UserError) as caught:
        load_fabric(str(path))
    said = str(caught.value)
    for part in ("curves[0].collective", "curves[1].ranks", "curves[1].source", "curves[2].points", "fewer bytes"):
        assert part in said

"""Random cases beside the real ASTRA-sim binaries, where ORRERY_ASTRA_SIM (and ORRERY_ASTRA_SIM_AWARE) name them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import analytical_cases as cases
import pytest
from random_cases import random_case

from analytical.output.report import report
from converters.chakra import write_graph
from foundation.errors import OrreryError

pytestmark = pytest.mark.external

BINARIES = {"unaware": os.environ.get("ORRERY_ASTRA_SIM"), "aware": os.environ.get("ORRERY_ASTRA_SIM_AWARE")}
FINISHED = re.compile(r"sys\[(\d+)\] finished, (\d+) cycles, exposed communication (\d+) cycles")
STATISTICS = re.compile(r"\[statistics\] \[info\] sys\[(\d+)\], (.*)")
CASES = int(os.environ.get("ORRERY_ASTRA_SIM_CASES", "60"))


@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("variant", BINARIES)
def test_same_as_the_binary(seed: int, variant: str, tmp_path: Path) -> None:
    """The same lines in the same order, and the same statistics; or both refuse."""
    binary = BINARIES[variant]
    if not binary:
        pytest.skip(f"no ASTRA-sim binary is named for the {variant} network")
    case = random_case(seed, aware=variant == "aware")
    if case["memory"]["memory-type"] in ("PER_NODE_MEMORY_EXPANSION", "MEMORY_POOL"):
        pytest.skip("ASTRA-sim reads freed memory here, and may crash")
    out = _run(binary, case, tmp_path)
    expected = FINISHED.findall(out)
    backend = cases.backend(case, congestion=variant)
    try:
        ours = "\n".join(report(backend.events.run_step(cases.graph(case), solve=False)))
    except OrreryError:
        assert len(expected) < len(case["ranks"])
        return
    assert FINISHED.findall(ours) == expected
    printed = set(STATISTICS.findall(out))
    assert printed <= set(STATISTICS.findall(ours))


def _run(binary: str, case: cases.Description, folder: Path) -> str:
    written = write_graph(cases.graph(case), folder / "trace")
    arguments = [binary, f"--workload-configuration={folder / 'trace'}"]
    for flag, name, text in (
        ("network", "network.yml", cases.network_text(case)),
        ("system", "system.json", json.dumps(case["system"])),
        ("remote-memory", "memory.json", json.dumps(case["memory"])),
    ):
        (folder / name).write_text(text)
        arguments.append(f"--{flag}-configuration={folder / name}")
    if written.groups:
        arguments.append(f"--comm-group-configuration={written.groups}")
    arguments += [f"--{name.replace('_', '-')}={value}" for name, value in case["options"].items()]
    try:
        process = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return ""  # it hangs
    return process.stdout if process.returncode == 0 else ""

"""`--perf_model aiconfigurator` through the main job, over a folder of tables of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.aiconfigurator_tables import MIXTURE, MODEL, SYSTEM, system

from orchestrator.commands.run import simulate
from orchestrator.settings.specification import from_flags
from orchestrator.simulation import Simulation

ROWS = "100\t8\t0\n40\t15\t1000\n300\t6\t20000\n7\t1\t3000000\n64\t16\t3001000\n"


def flags(folder: Path, document: dict[str, object], *more: str) -> list[str]:
    (folder / "model.json").write_text(json.dumps(document))
    (folder / "few.tsv").write_text(ROWS)
    tables = [
        "--aiconfigurator_tables",
        str(system(folder / "tables")),
        "--aiconfigurator_system",
        SYSTEM,
        "--hardware",
        "A40",
    ]
    return [*tables, "--model_name", str(folder / "model.json"), "--dataset", str(folder / "few.tsv"), *more]


@pytest.mark.parametrize(("document", "npus"), [(MODEL, "1"), (MIXTURE, "2")], ids=["dense", "mixture"])
def test_tables_of_prices_are_the_traced_way(tmp_path: Path, document: dict[str, object], npus: str) -> None:
    given = flags(tmp_path, document, "--npu_num", npus)
    quick, exact = (Simulation(from_flags([*given, *way])).run() for way in ([], ["--exact_steps"]))
    assert quick.columns["end"].tolist() == exact.columns["end"].tolist()
    for result in (quick, exact):
        found = result.summary.lookups
        assert found is not None and found.roofline > 0 and found.interpolated > 0


def test_the_summary_says_what_the_roofline_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate([*flags(tmp_path, MODEL), "--output", str(tmp_path / "out.csv")]) == 0
    said = capsys.readouterr().out
    assert "% the roofline's" in said and f"aiconfigurator, {SYSTEM}, vllm: kernels as measured with vllm 1.2.0" in said
    found = json.loads((tmp_path / "out-summary.json").read_text())["lookups"]
    operators = found.pop("operators")
    assert operators["sampler"]["roofline"] > 0 and not operators["qkv_proj"]["roofline"]
    assert found == {kind: sum(counts[kind] for counts in operators.values()) for kind in found}
    settings = json.loads((tmp_path / "out-settings.json").read_text())
    assert settings["perf_model"] == "aiconfigurator"

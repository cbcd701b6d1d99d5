"""Every step of the recorded cases: our own, decided by vLLM's classes, and the larger corpus where it is present."""

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.replay.case import Case, read_case
from orchestrator.replay.compare import first_difference
from orchestrator.replay.run import replay

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("ORRERY_SHARED", HERE.parents[2] / "shared"))
CORPUS = SHARED / "corpus" / "vllm_scheduler"
OWN = sorted((HERE / "cases").glob("*.json"))
OTHERWISE_IN_0_19 = [path for path in OWN if path.stem.startswith(("0.33_ahead", "0.33_step", "0.33_alone"))]


def own_case(path: Path, folder: Path) -> tuple[Case, dict[str, Any]]:
    """Return a case of ours and what vLLM decided for it."""
    document = json.loads(path.read_text())
    (folder / "case.json").write_text(json.dumps(document["case"]))
    case = read_case(folder / "case.json", document["version"])
    return replace(case, config=replace(case.config, pipeline_stages=document["pipeline_stages"])), document


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_decisions_are_those_of_vllm(path: Path, tmp_path: Path) -> None:
    case, recorded = own_case(path, tmp_path)
    actual = replay(case)
    expected = {key: actual[key] for key in ("step_columns", "request_columns")}
    assert first_difference({**expected, "steps": recorded["steps"], "requests": recorded["requests"]}, actual) is None


@pytest.mark.parametrize("path", OTHERWISE_IN_0_19, ids=lambda path: path.stem)
def test_the_versions_differ_where_they_should(path: Path, tmp_path: Path) -> None:
    case, recorded = own_case(path, tmp_path)
    assert replay(replace(case, config=replace(case.config, version="0.19")))["steps"] != recorded["steps"]


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded corpus at {CORPUS} (set ORRERY_SHARED)")
@pytest.mark.parametrize("folder", sorted(CORPUS.iterdir()) if CORPUS.is_dir() else [], ids=lambda path: path.name)
def test_decisions_are_those_of_the_corpus(folder: Path) -> None:
    plain = folder / "expected.json"
    text = plain.read_text() if plain.exists() else gzip.decompress((folder / "expected.json.gz").read_bytes()).decode()
    assert first_difference(json.loads(text), replay(read_case(folder / "case.json", "0.19"))) is None

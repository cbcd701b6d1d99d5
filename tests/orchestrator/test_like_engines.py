"""Many engines in one run: what equal settings decide is worked out once, files are read once, results are the same."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import foundation.documents
import orchestrator.deploying
from orchestrator import RunSpec, Simulation
from orchestrator.settings.record import repeating
from orchestrator.simulation import prepare
from trace_gen.config_root import CONFIG_ROOT

MANY = 200
SHIPPED = {
    "network": CONFIG_ROOT / "networks" / "ring-4.yml",
    "system": CONFIG_ROOT / "systems" / "ring-1d.json",
    "remote_memory": CONFIG_ROOT / "memories" / "host-per-npu.json",
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    path.write_text("".join(f"{10 + 3 * n}\t{4 + n % 5}\t{400_000 * n}\n" for n in range(14)))
    return path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of the things that an engine is put together from is made, and each file is read."""
    counted = Counter[str]()

    def count(module: Any, name: str, label: Any) -> None:
        inner = getattr(module, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            counted[label(*arguments)] += 1
            return inner(*arguments, **named)

        monkeypatch.setattr(module, name, counting)

    deploying = orchestrator.deploying
    for name in ("Deployment", "TraceGenerator", "PerfModelOptions", "effective_configurations"):
        count(deploying, name, lambda *_, name=name: name)
    count(foundation.documents, "read_bytes", lambda path, *_: Path(path).name)
    return counted


def test_however_many_instances_one_engine_is_deployed() -> None:
    spec = RunSpec.of(model_name="openai-community/gpt2")
    deploying = orchestrator.deploying.Deploying(spec)
    pair, many = (deploying.deploy(replace(spec.engine, instances=count)) for count in (2, 7))
    assert pair is many and many.engine.instances == 1


def test_like_engines_are_deployed_once(made: Counter[str], dataset: Path) -> None:
    values: dict[str, Any] = {"dataset": str(dataset), "hardware": "H100", "scheduling": "vllm"}
    one = prepare(RunSpec.of(**values))
    alone = Counter(made)
    assert alone["Deployment"] == 1 and alone["H100.json"] == 1
    made.clear()
    many = prepare(RunSpec.of(**values, engines=[{}] * MANY))
    assert made == alone
    assert len(many.deployments) == MANY and len(many.kinds()) == 1
    assert many.spec.engines == one.spec.engines * MANY


def test_what_unlike_engines_share_is_made_once(made: Counter[str], dataset: Path, tmp_path: Path) -> None:
    """Other limits make another deployment, not another generator; other links other configurations; files are read
    once, whoever asks for them."""
    own = {name: str(shutil.copy(path, tmp_path / path.name)) for name, path in SHIPPED.items()}
    engines: list[dict[str, Any]] = [{"max_batch": n + 1} for n in range(MANY)]
    engines += [{"npu_num": 4, **own, "max_batch": n + 1} for n in range(MANY)]
    run = prepare(RunSpec.of(model_name="openai-community/gpt2", dataset=str(dataset), engines=engines))
    assert len(run.kinds()) == 2 * MANY == made["Deployment"]
    assert made["TraceGenerator"] == made["PerfModelOptions"] == made["effective_configurations"] == 2
    files = [name for name in made if "." in name]
    assert {path.name for path in SHIPPED.values()} <= set(files) and {"gpt2.json", "RTX3090.json"} <= set(files)
    assert all(made[name] == 1 for name in files), made


def test_a_list_of_like_engines_is_instances_of_one(dataset: Path) -> None:
    values = {"model_name": "openai-community/gpt2", "dataset": str(dataset)}
    listed = Simulation(RunSpec.of(**values, engines=[{}, {"instances": 2}, {}])).run()
    counted = Simulation(RunSpec.of(**values, instances=4)).run()
    assert set(listed.columns["engine"].tolist()) == {0, 1, 2, 3}
    for name, column in counted.columns.items():
        assert listed.columns[name].tolist() == column.tolist()
    assert listed.backend == counted.backend, "they share what a batch costs, too"
    written = repeating(listed.spec)["engines"]
    assert [one["instances"] for one in written] == [1, 2, 1], "a run is recorded as it was asked for"


def test_kinds_that_alternate_keep_their_places(dataset: Path, tmp_path: Path) -> None:
    """Round robin sends every third request to the same place; each engine is as if it were alone."""
    kinds: list[dict[str, Any]] = [{}, {"hardware": "H100"}, {}]
    values: dict[str, Any] = {"model_name": "openai-community/gpt2"}
    result = Simulation(RunSpec.of(**values, dataset=str(dataset), engines=kinds)).run()
    rows = dataset.read_text().splitlines(keepends=True)
    for place, kind in enumerate(kinds):
        own = tmp_path / f"{place}.tsv"
        own.write_text("".join(rows[place::3]))
        alone = Simulation(RunSpec.of(**values, **kind, dataset=str(own))).run()
        mine = result.columns["engine"] == place
        assert result.columns["end"][mine].tolist() == alone.columns["end"].tolist()

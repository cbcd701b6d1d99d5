"""The settings of the ways to an ASTRA-sim of others reach what runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_graphs import configuration, tensor_parallel
from stand_ins import good

from external.astra_sim.settings import AstraSimSettings, ContainerSettings, ProcessSettings, SpoolSettings
from foundation.errors import UserError

RUNNERS = {
    "process": ("external.astra_sim.process.ProcessRunner", ProcessSettings),
    "docker": ("external.astra_sim.container.DockerRunner", ContainerSettings),
    "spool": ("external.astra_sim.spool.SpoolRunner", SpoolSettings),
}


class Stub:
    """In place of a runner: what it was made with."""

    def __init__(self, *given: Any, **limits: Any) -> None:
        self.given, self.limits = given, limits


def runner_of(settings: Any) -> Any:
    return settings.start(**configuration())._runner


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, _ in RUNNERS.values():
        monkeypatch.setattr(place, Stub)
    for name in ("ORRERY_ASTRA_SIM", "ASTRA_SIM_IMAGE", "ORRERY_SPOOL_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_named_is_taken_before_the_environment(
    stubs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = good(tmp_path / "one"), good(tmp_path / "other")
    plain = {"cache": False}
    named = {
        "ORRERY_ASTRA_SIM": (ProcessSettings(astra_sim=str(one), **plain), ProcessSettings(**plain), [str(one)]),
        "ASTRA_SIM_IMAGE": (ContainerSettings(astra_sim_image="one", **plain), ContainerSettings(**plain), "one"),
        "ORRERY_SPOOL_DIR": (SpoolSettings(spool_dir="one", **plain), SpoolSettings(**plain), "one"),
    }
    for variable, (given, silent, expected) in named.items():
        instead = str(other) if variable == "ORRERY_ASTRA_SIM" else "other"
        monkeypatch.setenv(variable, instead)
        assert runner_of(given).given[0] == expected
        assert runner_of(silent).given[0] in (instead, [instead])
        monkeypatch.delenv(variable)
    assert runner_of(ContainerSettings(**plain)).given[0] == "orrery-astra-sim"
    for lacking, flag in ((ProcessSettings(**plain), "--astra_sim"), (SpoolSettings(**plain), "--spool_dir")):
        with pytest.raises(UserError, match=flag):
            runner_of(lacking)


@pytest.mark.parametrize("way", RUNNERS)
def test_limits_and_folders_reach_the_runner(way: str, stubs: None, tmp_path: Path) -> None:
    of = {"process": {"astra_sim": str(good(tmp_path / "b"))}, "docker": {}, "spool": {"spool_dir": "s"}}[way]
    kind: type[AstraSimSettings] = RUNNERS[way][1]
    given = runner_of(kind(**of, cache=False, work_dir="elsewhere", backend_timeout=7.5))
    assert given.limits["timeout_s"] == 7.5
    assert given.limits.get("work_dir", "elsewhere") == "elsewhere"
    assert ("work_dir" in given.limits) == (way != "spool"), "a spool folder is where its graphs are"
    assert runner_of(kind(**of, cache=False)).limits["timeout_s"] == 600


def test_the_cache_and_the_binarys_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache the second backend runs nothing; another flag is another case, and reaches the binary."""
    monkeypatch.setattr("external.astra_sim.process.file_identity", lambda _: "not that of a script, which is not kept")
    binary = good(tmp_path / "binary")
    binary.write_text(binary.read_text().replace("echo run", 'echo "$@"'))
    shared = {"astra_sim": str(binary), "cache_dir": str(tmp_path / "cache"), "work_dir": str(tmp_path / "work")}
    more = {"num_queues_per_dim": 3, "injection_scale": 2.5, "rendezvous_protocol": True}
    runs = []
    for settings in (shared, shared, {**shared, "cache": False}, {**shared, **more}):
        backend = ProcessSettings(**settings).start(**configuration())
        backend.simulate(tensor_parallel())
        runs.append(backend.statistics()["runs"])
        backend.close()
    assert runs == [1, 0, 1, 1]
    first, *_, last = Path(f"{binary}.runs").read_text().splitlines()
    for flag, plain, given in (
        ("num-queues-per-dim", "1", "3"), ("injection-scale", "1.0", "2.5"), ("rendezvous-protocol", "false", "true")
    ):  # fmt: skip
        assert f"--{flag}={plain}" in first and f"--{flag}={given}" in last
    assert list((tmp_path / "work").iterdir()) == []

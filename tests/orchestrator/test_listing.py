"""`orrery hardware` and `orrery models`: every shipped thing is listed, with its figures, units and sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from orchestrator.cli import dispatch
from orchestrator.cluster.nodes import shipped_nodes
from orchestrator.fabrics.reading import shipped_fabrics
from trace_gen.hardware import load_hardware, shipped_hardware
from trace_gen.models import load_model, shipped_models


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert dispatch(list(words)) == 0
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(capsys, *words, "--json"))


def test_everything_that_ships_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split()[0] for line in said(capsys, "hardware").splitlines() if line.split()]
    for name in (*shipped_hardware(), *shipped_nodes(), *shipped_fabrics()):
        assert rows.count(name) == 1, name
    listed = [line.split()[0] for line in said(capsys, "models").splitlines() if line.split()]
    assert [name for name in listed if name in shipped_models()] == list(shipped_models())


def test_the_json_is_what_the_files_say(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "hardware")
    for kind, files in (("devices", shipped_hardware()), ("nodes", shipped_nodes()), ("fabrics", shipped_fabrics())):
        assert found[kind] == {name: json.loads(path.read_text()) for name, path in files.items()}


def test_a_rows_figures_are_the_devices(capsys: pytest.CaptureFixture[str]) -> None:
    [row] = [line for line in said(capsys, "hardware").splitlines() if line.split()[:1] == ["A100-80G"]]
    assert row.split()[-7:] == ["312", "624", "79.25", "2039", "300", "400", "a100-nvlink"]
    [without] = [line for line in said(capsys, "hardware").splitlines() if line.split()[:1] == ["TPU-v5e"]]
    assert without.split()[-2:] == ["-", "-"], "no power that is published, no fabric that was measured"


@pytest.mark.parametrize("spelled", ["H200", "h200 sxm", "hgx-h200", "H200 NVLink"])
def test_one_of_them_is_told_with_sources(spelled: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole, found = said(capsys, "hardware", spelled), document(capsys, "hardware", spelled)
    for source in found["sources"].values():
        assert source in whole
    assert found["kind"] == {"hgx-h200": "node", "H200 NVLink": "fabric"}.get(spelled, "device")


def test_figures_have_units(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line.split()[0]: line for line in said(capsys, "hardware", "H200").splitlines() if line.split()}
    for name, figure in (
        ("peak_tflops.fp8", "1978.9 TFLOP/s, dense"),
        ("memory_bandwidth_gb_s", "4800 GB/s"),
        ("memory_gb", "141 GB"),
        ("driver_memory_gib", "139.8 GiB"),
        ("cache_mib", "50 MiB"),
        ("power_w", "700 W"),
        ("link_latency_ns", "500 ns"),
    ):
        assert f" {figure}  " in lines[name], name


def test_a_users_own_device_and_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = json.loads(shipped_hardware()["L4"].read_text())
    (tmp_path / "mine.json").write_text(json.dumps({**device, "name": "mine", "power_w": 33}))
    assert document(capsys, "hardware", str(tmp_path / "mine.json"))["power_w"] == 33
    (tmp_path / "config.json").write_text(shipped_models()["gpt3-13b"].read_text())
    assert document(capsys, "models", str(tmp_path))["source"] == "the file that was given"


def test_a_models_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "models", "deepseek-v3")
    assert found["parameters"] == 671_026_419_200, "DeepSeek-V3 Technical Report: 671B"
    assert found["mixtures"] == [{"experts": 256, "experts_per_token": 8, "width": 2048}]
    assert found["kv_bytes_per_token"] == 61 * (512 + 64) * 2
    assert "deepseek-v3" in found["aliases"] and found["source"].startswith("Hugging Face, deepseek-ai/DeepSeek-V3")
    llama = document(capsys, "models", "Llama-3.1-8B")
    assert (llama["weight_bytes"], llama["kv_bytes_per_token"]) == (2 * 8_030_261_248, 2 * 32 * 8 * 128 * 2)
    every = document(capsys, "models")["models"]
    assert every["deepseek-ai/DeepSeek-V3"] == found and all(one["source"] for one in every.values())
    assert "table 2.1" in every["gpt3-175b"]["source"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hardware", "H20O"), "no device, node or fabric is called 'H20O'; did you mean H200"),
        (("hardware", "nowhere.json"), "nowhere.json: the hardware configuration does not exist; check the path"),
        (("models", "Llama-9"), "unknown model 'Llama-9'"),
        (("hardware", "H100", "H200"), '"H200" belongs to no flag'),
    ],
)
def test_what_does_not_exist_is_one_line(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as error:
        dispatch(words)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("power", ["0", "-3", '"much"', "1e9"])
def test_power_is_a_number_above_zero(power: str, tmp_path: Path) -> None:
    text = shipped_hardware()["L4"].read_text().replace('"power_w": 72', f'"power_w": {power}')
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(UserError, match=r"wrong\.json, line \d+, power_w: "):
        load_hardware(str(tmp_path / "wrong.json"))


def test_a_model_is_loaded_as_a_run_loads_it() -> None:
    assert load_model("deepseek-v3").name == "deepseek-ai/DeepSeek-V3"

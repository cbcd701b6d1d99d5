"""The settings of the main job: derived flags, run files that repeat a run, a schema that agrees, nothing ignored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from helpers.json_schema import valid
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from foundation.errors import UserError
from foundation.settings import Setting
from foundation.settings.catalogue import Entry, catalogue
from foundation.settings.reading import check, flat
from foundation.settings.schema import json_schema
from orchestrator.commands.run import simulate
from orchestrator.schedulers.policies.vllm import VllmSettings
from orchestrator.settings.decided import decided
from orchestrator.settings.engine import ModelSettings
from orchestrator.settings.record import repeating, shown
from orchestrator.settings.specification import EngineSpec, RunSpec, from_flags
from trace_gen.hardware import load_hardware
from trace_gen.models import load_model

ROOT = Path(__file__).parents[2]
KNOWN = catalogue(RunSpec)


def value_of(entry: Entry) -> st.SearchStrategy[Any]:
    """Return right values of a setting, and a few wrong ones."""
    one = entry.declaration
    if not isinstance(one, Setting):
        return st.sampled_from(list(one.registry))
    if one.choices is not None:
        return st.sampled_from([int(text) if one.kind == "int" else text for text in one.choices])
    low = one.least if one.least is not None else one.above
    match one.kind:
        case "bool":
            return st.booleans()
        case "int":
            return st.integers(int(-3 if low is None else low - 1), min(10**6, int(one.most or 10**6)))
        case "float":
            return st.sampled_from([0.0, 1e-6, 0.25, 1.0, 600.0])
        case _:
            return st.sampled_from(["a", "b/c.json", "mit ß"])


def with_readers(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with choices that read them, as far as none is made."""
    made = dict(values)
    for name in values:
        for reader in KNOWN.entries[name].readers[:1]:
            made.setdefault(reader.choice, reader.value)
    return made


ANY = st.lists(st.sampled_from(sorted(KNOWN.entries)), unique=True, max_size=4).flatmap(
    lambda names: st.fixed_dictionaries({name: value_of(KNOWN.entries[name]) for name in names})
)
SOME = st.one_of(ANY, ANY.map(with_readers))


def attempt(make: Callable[[], RunSpec]) -> RunSpec | None:
    try:
        return make()
    except UserError:
        return None


def by_file(text: str) -> RunSpec | None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        path.write_text(text)
        return attempt(lambda: from_flags(["--settings", str(path)]))


def as_flags(values: dict[str, Any]) -> list[str]:
    words = []
    for name, value in values.items():
        words += [f"--{'' if value else 'no_'}{name}"] if isinstance(value, bool) else [f"--{name}={value}"]
    return words


@reaches(0.15, examples=150, values=SOME)
def test_flags_files_and_python_make_the_same_run(reached: Reached, values: dict[str, Any]) -> None:
    made = attempt(lambda: RunSpec.of(**values))
    assert by_file(json.dumps(values)) == attempt(lambda: from_flags(as_flags(values))) == made
    if made is None:
        return
    reached()
    assert by_file(json.dumps(flat(made))) == made, "written, it reads back"
    check(made)
    again = by_file(json.dumps(repeating(made)))
    assert again is not None and repeating(again) == repeating(made) and shown(again, again) == shown(made, made)


@reaches(0.2, examples=150, values=SOME)
def test_what_the_schema_refuses_a_reading_refuses(reached: Reached, values: dict[str, Any]) -> None:
    if not valid(json_schema(KNOWN, "run"), values):
        reached()
        assert attempt(lambda: RunSpec.of(**values)) is None


@reaches(0.15, examples=150, values=SOME)
def test_what_a_reading_takes_the_schema_takes(reached: Reached, values: dict[str, Any]) -> None:
    if attempt(lambda: RunSpec.of(**values)) is not None:
        reached()
        assert valid(json_schema(KNOWN, "run"), values)


def test_every_setting_says_what_it_means() -> None:
    for name, entry in KNOWN.entries.items():
        one = entry.declaration
        assert len(one.help) > 3 and not one.help.endswith("."), name
        if isinstance(one, Setting) and one.optional and one.kind != "Path" and not one.implies:
            assert one.shown_default, f"--{name} is decided by something: say by what"


def test_help_has_settings_of_a_kind_under_their_heading() -> None:
    headings = catalogue(RunSpec).by_heading()
    found = {entry.name: heading for heading, entries in headings.items() for entry in entries}
    wanted = {"router": "Cluster", "npu_num": "Parallelism and memory", "dataset": "Workload", "output": "Output"}
    assert {name: found[name] for name in wanted} == wanted


def test_no_choice_of_settings_loads_anything_heavy() -> None:
    script = (
        "import sys\n"
        "from foundation.settings.catalogue import catalogue\n"
        "from orchestrator.settings.specification import RunSpec, from_flags\n"
        "catalogue(RunSpec); from_flags(['--scheduling', 'vllm', '--backend', 'spool', '--perf_table', 'x'])\n"
        "heavy = {'numpy', 'google.protobuf', 'yaml', 'rich', 'argparse', 'json'} & set(sys.modules)\n"
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(["--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == json_schema(KNOWN, schema["title"])
    assert valid(schema, repeating(RunSpec()))


def test_engines_of_a_file_share_what_stands_beside_them() -> None:
    spec = RunSpec.of(model_name="m", fp=8, engines=[{"npu_num": 2}, {"hardware": "H100", "fp": 16}])
    stated = [(one.model.model_name, one.model.hardware, one.model.fp, one.parallelism.npus) for one in spec.engines]
    assert stated == [("m", None, 8, 2), ("m", "H100", 16, 1)]
    assert RunSpec.of(**repeating(spec)) == spec


@pytest.mark.parametrize(
    ("vllms", "ours"),
    [
        ("--tensor-parallel-size 4 --pipeline-parallel-size 2", "--npu_num 8 --npu_group 2"),
        ("--tensor-parallel-size 4", "--npu_num 4"),
        ("--npu_num 8 --pipeline-parallel-size 2", "--npu_num 8 --npu_group 2"),
        ("--tensor-parallel-size 4 --npu_num 8 --npu_group 2", "--npu_num 8 --npu_group 2"),
        ("--tensor-parallel-size 2 --enable-expert-parallel", "--npu_num 2 --ep_size 2"),
        ("--dtype bfloat16", "--fp 16"),
        ("--dtype float32 --fp 32", "--fp 32"),
        ("--model gpt2", "--model_name gpt2"),
        ("--num-prompts 7", "--req_num 7"),
        ("--scheduling vllm --scheduling-policy priority", "--scheduling vllm --policy priority"),
        ("--scheduling vllm --no-enable-prefix-caching", "--scheduling vllm --no_prefix_caching"),
        ("--scheduling vllm --no-enable-chunked-prefill", "--scheduling vllm --no_chunked_prefill"),
        ("--scheduling vllm --enable-prefix-caching --enable-chunked-prefill", "--scheduling vllm"),
    ],
)
def test_vllms_words_mean_what_ours_mean(vllms: str, ours: str) -> None:
    model, hardware = load_model("Qwen1.5-MoE-A2.7B"), load_hardware("H100")
    said, meant = (from_flags(words.split()) for words in (vllms, ours))
    assert decided(said.engine, model, hardware) == decided(meant.engine, model, hardware)
    assert (said.workload, said.output) == (meant.workload, meant.output)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--tensor_parallel_size 4 --npu_num 2", "--tensor_parallel_size: 4 conflicts with 2 NPUs in 1 stages"),
        (
            "--pipeline_parallel_size 2 --npu_num 4 --npu_group 4",
            "--pipeline_parallel_size: 2 conflicts with --npu_group 4",
        ),
        ("--npu_num 4 --enable_expert_parallel --ep_size 1", "--enable_expert_parallel: conflicts with --ep_size 1"),
        ("--dtype float32 --fp 16", "--dtype: float32 conflicts with --fp 16; leave one out"),
        ("--network n.yml --link_bw 5", "--link_bw: not read beside --network, which says it; leave one out"),
        ("--network n.yml --link_latency 0", "--link_latency: not read beside --network"),
        ("--remote_memory m.json --remote_bw 5", "--remote_bw: not read beside --remote_memory"),
    ],
)
def test_what_is_said_twice_and_differently_is_refused(flags: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        from_flags(flags.split())
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("hardware", sorted(path.stem for path in (ROOT / "configs" / "hardware").glob("*.json")))
def test_what_model_and_device_decide_is_written_down_once_and_for_all(hardware: str) -> None:
    model, device = load_model("gpt2"), load_hardware(hardware)
    first = decided(RunSpec.of(hardware=hardware, npu_num=4, scheduling="vllm").engine, model, device)
    assert decided(first, model, device) == first
    assert round(first.parallelism.npu_mem * 1e9) == device.driver_memory_bytes
    plain = decided(RunSpec.of(hardware=hardware, npu_num=4).engine, model, device)
    assert round(plain.parallelism.npu_mem * 1e9) == device.memory_bytes
    assert first.model.local_bw * 1e9 == pytest.approx(device.memory_bandwidth, rel=1e-15)
    by_links = decided(RunSpec.of(hardware=hardware, npu_num=4, fabric="none").engine, model, device).network
    assert by_links.link_bw * 2**30 == pytest.approx(device.link_bandwidth, rel=1e-15)
    assert (by_links.link_latency, first.memory.max_model_len) == (device.link_latency_ns, 1024)
    network = first.network
    assert network.fabric == device.fabric and (network.link_bw is None) == (device.fabric is not None)
    written = repeating(RunSpec((first,)))
    assert None not in written.values() and RunSpec.of(**written).engine == first
    open_still = {name for name in KNOWN.entries if name not in written}
    assert not open_still & {"npu_mem", "local_bw", "npu_num", "npu_group", "block_size", "max_model_len"}
    assert len(open_still & {"fabric", "link_bw"}) == 1


@pytest.mark.parametrize("off", [True, False])
def test_a_word_that_switches_off_does_so_in_python_as_well(off: bool) -> None:
    wanted = from_flags(["--scheduling", "vllm", *(["--no_prefix_caching"] if off else [])])
    assert RunSpec.of(scheduling="vllm", no_prefix_caching=off) == wanted
    assert RunSpec.of(scheduling="vllm", enable_prefix_caching=not off) == wanted


def test_more_npus_than_a_model_has_columns_are_refused() -> None:
    model, device = load_model("gpt2"), load_hardware("H100")
    decided(RunSpec.of(npu_num=768).engine, model, device)
    with pytest.raises(UserError, match="--npu_num: 100000 NPUs would share 768 columns of openai-community/gpt2"):
        decided(RunSpec.of(npu_num=100_000).engine, model, device)


def test_a_length_beyond_the_models_is_refused_as_vllm_does() -> None:
    model, device = load_model("gpt2"), load_hardware("H100")
    assert decided(RunSpec.of(scheduling="vllm", max_model_len=1024).engine, model, device).memory.max_model_len == 1024
    for choice in ({"scheduling": "vllm"}, {"kv_manage": "max"}):
        with pytest.raises(UserError, match="--max_model_len: 1025 tokens, openai-community/gpt2 takes 1024"):
            decided(RunSpec.of(**choice, max_model_len=1025).engine, model, device)
    assert decided(RunSpec.of(max_model_len=1025).engine, model, device).memory.max_model_len == 1025


def test_a_run_of_records_is_the_run_of_their_values() -> None:
    made = RunSpec((EngineSpec(ModelSettings("m", fp=8), scheduling=VllmSettings(max_num_seqs=4)),))
    assert made == RunSpec.of(model_name="m", fp=8, scheduling="vllm", max_num_seqs=4)
    assert made.engine.block_size == 16 and RunSpec().engine.block_size == 8


def test_the_run_says_which_links_it_assumes(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--model_name", "gpt2", "--req_num", "2", "--npu_num", "2"]
    assert simulate([*base, "--hardware", "L40S"]) == 0
    assert "links: 31.5 GB/s (1e9) a direction, 1000 ns, L40S's own\n" in capsys.readouterr().out
    assert simulate([*base, "--link_bw", "100"]) == 0
    assert "links: 107.374 GB/s (1e9) a direction, 1000 ns\n" in capsys.readouterr().out
    assert simulate(base[:4]) == 0
    assert "links:" not in capsys.readouterr().out, "one NPU has none"


def test_requests_beyond_the_models_positions_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "w.tsv"
    dataset.write_text("1000\t24\t0\n1000\t25\t0\n")
    assert simulate(["--model_name", "gpt2", "--dataset", str(dataset)]) == 0
    assert "note: 1 requests go beyond the model's 1024 positions\n" in capsys.readouterr().out


def test_settings_written_beside_results_repeat_the_run(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("".join(f"{10 * n}\t{n}\t{n}\n" for n in range(1, 7)))
    flags = "--model_name openai-community/gpt2 --scheduling vllm --max_num_seqs 3 --req_num 4 --no_prefix_caching"
    flags += f" --dataset {tmp_path / 'rows.tsv'}"
    flags += " --tensor-parallel-size 2"
    first, second = tmp_path / "a" / "out.csv", tmp_path / "b" / "out.csv"
    assert simulate([*flags.split(), "--interface", "text", "--output", str(first)]) == 0
    written = tmp_path / "a" / "out-settings.json"
    assert "null" not in written.read_text()
    assert simulate(["--settings", str(written), "--output", str(second)]) == 0
    for name in ("out.csv", "out-settings.json", "out-summary.json", "out-throughput.tsv"):
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()
    assert json.loads(written.read_text())["interface"] == "text", "the way that was taken is part of it"

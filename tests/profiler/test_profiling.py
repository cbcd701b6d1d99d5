"""A profile by a device that computes its times: what is written is what was timed, is read again, and goes on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.fake_device import FakeDevice, fake_ns
from helpers.small_mixture import small_mixture
from helpers.small_profile import small_model

from foundation.errors import UserError
from profiler.device import Timing
from profiler.grids import Grids
from profiler.journal import NAME
from profiler.plan import plan, works
from profiler.profiling import Job, profile
from profiler.shapes import rank_kernels
from profiler.work import Kernel, Work
from trace_gen.hardware import load_hardware
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.profile.formats.llmservingsim import read_meta, read_rank
from trace_gen.perf_models.table_v0.table import load_table_v0
from trace_gen.precision import Precision
from trace_gen.vocabulary import FUSED

GRIDS = Grids(max_tokens=32, max_sequences=4, max_context=64)


def job(tmp_path: Path, out: str = "out", **changed: object) -> Job:
    model = load_model(small_model(tmp_path))
    given = {"degrees": (1, 2), "grids": GRIDS, "dtype": "bf16", "hardware": "RTX4090", **changed}
    return Job(model=model, architecture="llama", out=tmp_path / out, **given)


def quiet(done: int, total: int, work: Work) -> None:
    assert done < total


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_tables_hold_what_was_timed(tmp_path: Path) -> None:
    one, device = job(tmp_path), FakeDevice()
    went = profile(one, device, quiet)
    assert went.timed == len(device.asked) == len(set(device.asked)) and went.known == 0
    meta = read_meta(one.out)
    for degree in (1, 2):
        kernels = rank_kernels(one.model, degree, Precision(), FUSED)
        read = read_rank(one.out, meta, degree, experts=False)
        assert set(read.curves) == set(kernels) - {"attention"}
        for name, curve in read.curves.items():
            for size in (1, 3, 4):
                expected = fake_ns(Work(kernels[name], (size,)))
                assert float(curve.at(np.array([size]))[0]) == pytest.approx(expected, rel=1e-5)
        for row in rows(one.out / f"tp{degree}" / "attention.csv"):
            *sizes, time = row.values()
            expected = fake_ns(Work(kernels["attention"], tuple(map(int, sizes))))
            assert float(time) * 1e3 == pytest.approx(expected, rel=1e-5)


def test_the_simulator_reads_both_forms(tmp_path: Path) -> None:
    one = job(tmp_path)
    profile(one, FakeDevice(), quiet)
    options = PerfModelOptions(one.model, load_hardware("RTX4090"), 2)
    make_perf_model("profile", options, profile_dir=one.out)
    load_table_v0(PerfModelOptions(one.model, load_hardware("RTX4090")), one.out / "RTX4090.csv")
    found = {row["layer_name"] for row in rows(one.out / "RTX4090.csv")}
    assert {"q_proj", "rope", "attn", "gate_proj", "lm_head"} <= found


def test_experts_are_written_and_read(tmp_path: Path) -> None:
    model = load_model(small_mixture(tmp_path)[0])
    one = Job(model, "qwen3_moe", (1,), GRIDS, "bf16", "RTX4090", tmp_path / "out")
    profile(one, FakeDevice(), quiet)
    kernel = rank_kernels(model, 1, Precision(), FUSED)["moe"]
    written = rows(one.out / "tp1" / "moe.csv")
    assert written
    for row in written:
        tokens, active, time = row.values()
        assert float(time) * 1e3 == pytest.approx(fake_ns(Work(kernel, (int(tokens), int(active)))), rel=1e-5)
    assert read_rank(one.out, read_meta(one.out), 1, experts=True).experts is not None


@pytest.mark.parametrize("stop_after", [0, 1, 40])
def test_a_profile_that_was_stopped_goes_on(tmp_path: Path, stop_after: int) -> None:
    whole, stopped = job(tmp_path, "whole"), job(tmp_path, "stopped")
    profile(whole, FakeDevice(), quiet)
    first, second = FakeDevice(stop_after=stop_after), FakeDevice()
    with pytest.raises(KeyboardInterrupt):
        profile(stopped, first, quiet)
    assert not (stopped.out / "meta.yaml").exists(), "nothing is read that is not whole"
    with (stopped.out / f"{NAME}.part").open("a") as stream:
        stream.write('{"kernel": "line')  # a kill in the middle of a line
    went = profile(stopped, second, quiet)
    assert went.known == len(first.asked) == stop_after
    assert not set(first.asked) & set(second.asked), "what is known is not timed again"
    for table in sorted(path.relative_to(whole.out) for path in whole.out.rglob("*.csv")):
        assert (whole.out / table).read_bytes() == (stopped.out / table).read_bytes()


def test_a_finished_profile_is_extended(tmp_path: Path) -> None:
    first = FakeDevice()
    profile(job(tmp_path), first, quiet)
    larger = job(tmp_path, grids=Grids(max_tokens=64, max_sequences=4, max_context=64))
    second = FakeDevice()
    went = profile(larger, second, quiet)
    assert second.asked and went.known and not set(first.asked) & set(second.asked)
    again = FakeDevice()
    assert profile(larger, again, quiet).timed == 0 and not again.asked and not again.warm_ups


def test_another_device_does_not_go_on(tmp_path: Path) -> None:
    profile(job(tmp_path), FakeDevice(), quiet)
    with pytest.raises(UserError, match=r"line 1.*driver '1\.0'.*now it is '2\.0'.*another --out"):
        profile(job(tmp_path), FakeDevice(driver="2.0"), quiet)


def test_another_model_does_not_go_on(tmp_path: Path) -> None:
    profile(job(tmp_path), FakeDevice(), quiet)
    other = replace(job(tmp_path), model=load_model(small_mixture(tmp_path)[0]), degrees=(1,))
    with pytest.raises(UserError, match="model 'small', and now it is 'mixture'; give another --out"):
        profile(other, FakeDevice(), quiet)
    assert (tmp_path / "out" / "tp2" / "dense.csv").is_file()


def test_two_profilers_do_not_share_a_folder(tmp_path: Path) -> None:
    class Nosy(FakeDevice):
        def warm_up(self) -> float:
            with pytest.raises(UserError, match=r"measured\.jsonl\.part.*another program is writing this result"):
                profile(job(tmp_path), FakeDevice(), quiet)
            return super().warm_up()

    device = Nosy()
    profile(job(tmp_path), device, quiet)
    assert device.warm_ups and (tmp_path / "out" / "meta.yaml").is_file()


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"kernel": "linear"}'])
def test_a_broken_journal_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    one = job(tmp_path)
    profile(one, FakeDevice(), quiet)
    journal = one.out / NAME
    first, *others = journal.read_text().splitlines()
    journal.write_text("\n".join([first, line, *others]) + "\n")
    with pytest.raises(UserError, match=rf"{NAME}, line 2: is no line of a profile's journal"):
        profile(one, FakeDevice(), quiet)


def test_a_busy_device_is_refused_unless_told(tmp_path: Path) -> None:
    device = FakeDevice(busy="it is 93 % busy")
    with pytest.raises(UserError, match=r"--device: the device is not idle: it is 93 % busy.*--even_if_busy"):
        profile(job(tmp_path), device, quiet)
    assert not (tmp_path / "out").exists() and not device.asked
    profile(job(tmp_path, even_if_busy=True), device, quiet)
    assert device.asked


def test_what_was_timed_is_kept_where_something_does_not_fit(tmp_path: Path) -> None:
    first = FakeDevice(fails_at="attention")
    with pytest.raises(UserError, match="does not fit"):
        profile(job(tmp_path), first, quiet)
    second = FakeDevice()
    assert profile(job(tmp_path), second, quiet).known == len(first.asked) > 0


def test_attention_stays_within_the_memory_of_the_device(tmp_path: Path) -> None:
    one, device = job(tmp_path), FakeDevice()
    profile(one, device, quiet)
    most = yaml.safe_load((one.out / "meta.yaml").read_text())["grid"]["max_cached"]
    assert most == 2**22 // (2 * 2 * 4 * 32)
    assert all(w.sizes[1] + w.sizes[2] * w.sizes[3] <= most for w in device.asked if w.kernel.name == "attention")


def test_clocks_and_kernels_are_stated(tmp_path: Path) -> None:
    one, device = job(tmp_path), FakeDevice()
    profile(one, device, quiet)
    meta = yaml.safe_load((one.out / "meta.yaml").read_text())
    kernels = list(dict.fromkeys(work.kernel for work in device.asked))
    assert [note["kernel"] for note in meta["clocks"]] == [*(kernel.name for kernel in kernels), "end"]
    assert meta["clocks"][2]["clocks.sm"] == "2003 MHz" and meta["device"]["device"] == "Fake 9000"
    assert device.warm_ups == len(kernels), "warm before each kernel, whose timings follow each other"
    told = rows(one.out / "kernels.csv")
    assert {row["names"] for row in told} == {f"kernel_of_{kernel.name}" for kernel in kernels}
    linear = [work for work in device.asked if work.kernel.name == "linear"]
    assert sum(row["kernel"] == "linear" for row in told) == len(linear)


def test_equal_kernels_are_timed_once(tmp_path: Path) -> None:
    one = job(tmp_path)
    tables = plan(one.model, (1,), GRIDS, Precision(), "X")
    wanted = works(tables)
    assert len(wanted) == len(set(wanted)) < sum(len(table.rows) for table in tables)


def test_times_of_a_fraction_of_a_nanosecond_round_to_one(tmp_path: Path) -> None:
    class Instant(FakeDevice):
        def time(self, work: Work, *, names: bool) -> Timing:
            return Timing(0.25)

    one = job(tmp_path)
    profile(one, Instant(), quiet)
    assert {row["latency(ns)"] for row in rows(one.out / "RTX4090.csv")} == {"1"}
    assert str(Work(Kernel("linear", (4, 8, 0)), (16,))) == "linear 4x8x0 at 16"

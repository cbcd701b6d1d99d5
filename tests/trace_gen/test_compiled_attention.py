"""Attention in compiled functions gives what the performance models give with arrays, to the nanosecond."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.small_profile import add_skew, bundle, small_model
from helpers.two_ways import both_ways
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trace_cases import batch, model

from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import load_hardware
from trace_gen.models import load_model
from trace_gen.perf_model import CompilesAttention, PerfModelOptions, TimesAttention, make_perf_model
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.precision import Precision

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
MODELS = {
    "meta-llama/Llama-3.1-8B": (1, 3),
    "gpt2": (1,),
    "gpt-oss-20b": (1, 16),
    "deepseek-ai/DeepSeek-V3": (1, 8),
    "meta-llama/Llama-4-Scout-17B-16E": (1,),
}
"""Grouped heads (of three ranks: not a whole number of them), ungrouped, windows, latent, and chunks of 8,192."""
DEVICES = ("RTX3090", "H100", "TPU-v5e", "MI300X")
MEASURED = Path(os.environ.get("ORRERY_SHARED", Path(__file__).parents[3] / "shared")) / "measured"

requests = st.lists(
    st.tuples(st.one_of(st.just(1), st.integers(1, 600)), st.one_of(st.integers(0, 300), st.integers(0, 40_000))),
    min_size=1,
    max_size=40,
)
contexts = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 40_000)), min_size=1, max_size=80)


@pytest.fixture(scope="module", params=["plain", "compiled"])
def functions(request: pytest.FixtureRequest) -> ModuleType:
    found = both_ways("trace_gen.compiled_attention")
    if request.param not in found:
        pytest.skip("there is no compiler")
    assert hasattr(found[request.param].batch_ns, "py_func") is (request.param == "compiled")
    return found[request.param]


@cache
def rooflines() -> list[tuple[TimesAttention, AttentionShape]]:
    """Return models with each of the shapes that they are asked for."""
    found = []
    for name, degrees in MODELS.items():
        for device in DEVICES:
            for tensor in degrees:
                made = make_perf_model("roofline", PerfModelOptions(model(name), load_hardware(device), tensor))
                assert isinstance(made, TimesAttention)
                found += [(made, shape) for shape in shapes_of(name, tensor)]
    return found


def shapes_of(name: str, tensor: int) -> list[AttentionShape]:
    kinds = [kind.attention.shapes(tensor, Precision()) for kind in model(name).layer_kinds]
    return [shape for kind in kinds for shape in kind.values()]


class Loop:
    """A caller of the functions: one shape of one model, and the space that it gives them."""

    def __init__(self, functions: ModuleType, perf: TimesAttention, shape: AttentionShape) -> None:
        assert isinstance(perf, CompilesAttention)
        numbers = perf.compiled_attention(shape)
        assert numbers is not None
        self.functions, self.perf, self.shape, self.numbers = functions, perf, shape, numbers

    def space(self, requests: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((4, requests), np.nan), np.full((4, requests), -1)

    def batch(self, shape: BatchShape) -> int:
        count = len(shape.new_tokens)
        sizes = (shape.new_tokens, shape.context_tokens, count)
        return int(self.functions.batch_ns(self.numbers, *sizes, *self.space(count)))

    def decodes(self, contexts: list[int], steps: list[int]) -> list[int]:
        count, space = len(contexts), self.space(len(contexts))
        self.functions.begin_decodes(self.numbers, np.array(contexts), count, *space)
        return [int(self.functions.decodes_ns(self.numbers, count, step, *space)) for step in steps]

    def check_batch(self, rows: list[tuple[int, int]]) -> None:
        asked = batch([new for new, _ in rows], [context for _, context in rows])
        assert self.batch(asked) == self.perf.attention_ns(self.shape, asked)[0]

    def check_decodes(self, contexts: list[int], steps: int) -> None:
        """In order, and again at the ends and in the middle; one by one with a batch of a step."""
        expected = self.perf.attention_ns(self.shape, batch([1] * len(contexts), contexts, steps=steps)).tolist()
        order = [*range(steps), steps - 1, 0, steps // 2]
        assert self.decodes(contexts, order) == [expected[step] for step in order]
        assert self.batch(batch([1] * len(contexts), contexts)) == expected[0]


@SETTINGS
@given(case=st.integers(0, 999), rows=requests)
def test_a_batch_on_the_roofline(functions: ModuleType, case: int, rows: list[tuple[int, int]]) -> None:
    known = rooflines()
    Loop(functions, *known[case % len(known)]).check_batch(rows)


@SETTINGS
@given(case=st.integers(0, 999), contexts=contexts, steps=st.integers(1, 200))
def test_decodes_on_the_roofline(functions: ModuleType, case: int, contexts: list[int], steps: int) -> None:
    known = rooflines()
    Loop(functions, *known[case % len(known)]).check_decodes(contexts, steps)


@SETTINGS
@given(
    tile=st.floats(0, 2e5),
    window=st.sampled_from([None, 7, 128]),
    chunked=st.booleans(),
    contexts=contexts,
    steps=st.integers(1, 200),
)
@example(tile=1e6, window=None, chunked=False, contexts=[3, 9, 9, 2000], steps=3)
@example(tile=0, window=7, chunked=False, contexts=[1, 5], steps=20)
def test_decodes_that_are_quicker_as_chunks(
    functions: ModuleType, tile: float, window: int | None, chunked: bool, contexts: list[int], steps: int
) -> None:
    """A device whose decodes spend so long on a tile that their waves decide, or nearly so."""
    perf, shape = slow_decodes(tile, window, chunked and window is not None)
    Loop(functions, perf, shape).check_decodes(contexts, steps)


def slow_decodes(tile: float, window: int | None, chunked: bool) -> tuple[TimesAttention, AttentionShape]:
    hardware = load_hardware("A100-80G")
    decode = replace(hardware.efficiencies["attention_decode"], tile_ns=tile)
    slow = replace(hardware, efficiencies={**hardware.efficiencies, "attention_decode": decode})
    perf = make_perf_model("roofline", PerfModelOptions(model(), slow))
    assert isinstance(perf, TimesAttention)
    return perf, replace(shapes_of("meta-llama/Llama-3.1-8B", 1)[0], window=window, chunked=chunked)


def test_decodes_as_chunks_wait_for_the_longest() -> None:
    """So the examples above come to the waves, which most decodes do not."""
    one_long, alike = [2000, 9, 9, 6], [506] * 4
    for tile, waits in ((1e6, True), (0, False)):
        perf, shape = slow_decodes(tile, None, False)
        times = [int(perf.attention_ns(shape, batch([1] * 4, contexts))[0]) for contexts in (one_long, alike)]
        assert (times[0] > times[1]) is waits


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[ProfileModel, AttentionShape]]:
    """Return what reads a small table of uneven times, with tails, anew: none of its lookups are counted."""
    architecture = load_model(small_model(tmp_path_factory.mktemp("model")))
    folder = bundle(tmp_path_factory.mktemp("bundle"), meta={"skew_fit": {"enabled": True}})
    add_skew(folder, 0.013, 0.004)
    make_uneven(folder / "tp1" / "attention.csv")
    options = PerfModelOptions(architecture, load_hardware("RTX4090"))
    (shape,) = architecture.layer_kinds[0].attention.shapes(1, Precision()).values()

    def read() -> tuple[ProfileModel, AttentionShape]:
        made = make_perf_model("profile", options, profile_dir=folder)
        assert isinstance(made, ProfileModel)
        return made, shape

    return read


def make_uneven(path: Path) -> None:
    """Let times rise and fall from row to row, as measured ones do."""
    header, *rows = path.read_text().splitlines()
    factors = np.random.default_rng(5).uniform(0.5, 1.5, len(rows))
    split = [row.rsplit(",", 1) for row in rows]
    uneven = [f"{sizes},{float(time) * factor}" for (sizes, time), factor in zip(split, factors, strict=True)]
    path.write_text("\n".join([header, *uneven]) + "\n")


@pytest.fixture(scope="module")
def two_models(
    profiles: Callable[[], tuple[ProfileModel, AttentionShape]],
) -> tuple[ProfileModel, ProfileModel, AttentionShape]:
    (first, shape), (second, _) = profiles(), profiles()
    return first, second, shape


few = st.lists(
    st.tuples(
        st.one_of(st.just(1), st.sampled_from([16, 64, 256]), st.integers(2, 600)),
        st.one_of(st.sampled_from([0, 64, 256, 512, 1024]), st.integers(0, 3000)),
    ),
    min_size=1,
    max_size=24,
)


@SETTINGS
@given(
    rows=few,
    contexts=contexts,
    steps=st.integers(1, 40),
    window=st.sampled_from([None, 65, 300]),
    chunked=st.booleans(),
)
@example(rows=[(64, 64), (1, 256)], contexts=[256] * 4, steps=1, window=None, chunked=False)
@example(rows=[(8, 64), (1, 256)], contexts=[16], steps=1, window=None, chunked=False)
@example(rows=[(64, 900)], contexts=[16], steps=1, window=None, chunked=False)
@example(rows=[(64, 64), (64, 64), (1, 256)], contexts=[16], steps=1, window=None, chunked=False)
def test_a_profile_and_its_lookups(
    functions: ModuleType,
    two_models: tuple[ProfileModel, ProfileModel, AttentionShape],
    rows: list[tuple[int, int]],
    contexts: list[int],
    steps: int,
    window: int | None,
    chunked: bool,
) -> None:
    first, second, plain = two_models
    shape = replace(plain, window=window, chunked=chunked and window is not None)
    loop = Loop(functions, first, shape)
    before = [attention_lookups(one) for one in (first, second)]
    mixed = batch([new for new, _ in rows], [context for _, context in rows])
    growing = batch([1] * len(contexts), contexts, steps=steps)
    own = [loop.batch(mixed), *loop.decodes(contexts, list(range(steps)))]
    arrays = [*second.attention_ns(shape, mixed).tolist(), *second.attention_ns(shape, growing).tolist()]
    assert own == arrays
    added = [attention_lookups(one) - old for one, old in zip((first, second), before, strict=True)]
    assert added[0].tolist() == added[1].tolist() and added[0].sum() == 1 + steps


def attention_lookups(perf: ProfileModel) -> np.ndarray:
    found = perf.lookups.counts().get("attention")
    return np.array([0, 0, 0] if found is None else [found.measured, found.interpolated, found.extrapolated])


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured tables are not here")
@SETTINGS
@given(rows=requests, contexts=contexts, steps=st.integers(1, 60))
def test_tables_of_real_devices(
    functions: ModuleType, rows: list[tuple[int, int]], contexts: list[int], steps: int
) -> None:
    for perf, shape in measured():
        loop = Loop(functions, perf, shape)
        loop.check_batch(rows)
        loop.check_decodes(contexts, steps)


@cache
def measured() -> list[tuple[ProfileModel, AttentionShape]]:
    found = []
    for folder in sorted(MEASURED.iterdir()):
        device, _, _ = folder.name.partition("__")
        architecture = load_model(str(folder / "input" / "model_config.json"))
        made = make_perf_model(
            "profile", PerfModelOptions(architecture, load_hardware(device)), profile_dir=folder / "input" / "profile"
        )
        assert isinstance(made, ProfileModel)
        found += [(made, shape) for shape in architecture.layer_kinds[0].attention.shapes(1, Precision()).values()]
    return found

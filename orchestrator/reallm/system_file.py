"""ReaLLM's system YAML: what it asks for, every key read, or refused or noted by name.

Where ReaLLM takes one model, number of devices, parallelism, policy or chunk, a list of them is taken, too: a sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TypeVar

from foundation.documents import read_yaml
from foundation.errors import near_names
from foundation.fields import Fields
from foundation.printable import brief
from foundation.records import dataclass
from orchestrator.reallm.degrees import Degrees, read_degrees
from orchestrator.settings.engine import MOST_NPUS

T = TypeVar("T")
MODELS = {
    "llama70b": "meta-llama/Llama-3.1-70B",
    "llama405b": "meta-llama/Llama-3.1-405B",
    "deepseekv2": "deepseek-ai/DeepSeek-V2",
    "deepseekv3": "deepseek-ai/DeepSeek-V3",
}
"""ReaLLM's models, by our names; all have 128K positions or more, which its traffic needs."""
MIXTURES = ("deepseekv2", "deepseekv3")
TASKS = ("code", "conv")
POLICIES = {
    "baseline": "none",
    "continuous": "continuous",
    "mixed-continuous": "mixed-continuous",
    "mixed-sarathi": "chunked-mixed-continuous",
}
"""What ReaLLM's batching algorithms are called here. Of `mixed-continuous` its README tells; its code has no name."""
MISSING_ALGORITHMS = {
    "mixed-splitfuse": "ReaLLM itself does not implement it",
    "prefetch-mixed": "prefetching into 3D-stacked memory is not modelled",
    "prefetch-thread": "prefetching into 3D-stacked memory is not modelled",
}
IO_ALGORITHMS = ("ring", "2d_ring", "multishot")
MOST_LISTED = 100
"""Values of one list."""
MOST_RUNS = 10_000
"""Of one file; a longer sweep is a mistake."""
_MOST_CHUNK = 10**6
_MOST_REQUESTS = 10**6
_LEAST_RATE, _MOST_RATE = 1e-6, 1e6
_MOST_SECONDS = 1e8
_KERNEL_KEYS = {"compile_mode", "kernel_types", "prefill_blocks", "decode_ctxt"}
_SYSTEM_KEYS = {
    "device",
    "num_devices",
    "io_algo",
    "attention_parallelism",
    "ffn_parallelism",
    "batching_algo",
    "prefill_chunk",
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests to draw: for each task and each rate (requests/s), at most `max_requests` before `end_time` (s)."""

    tasks: Sequence[str]
    rates: Sequence[float]
    seed: int
    max_requests: int
    end_time: float


@dataclass(frozen=True, slots=True)
class SystemFile:
    """What a file asks for: the lists of a sweep, and what all runs of it share.

    `traces` are files of requests; where there are none, `traffic` says what is drawn. `end_reqs`: requests that are
    simulated, None for all. `notes` name what a file says and a run does not follow. `prefill_blocks`,
    `decode_contexts`: tokens of prompts and of contexts at which kernels are to be known.
    """

    path: Path
    models: Sequence[str]
    device: str
    num_devices: Sequence[int]
    parallelisms: Sequence[Degrees]
    algorithms: Sequence[str]
    chunks: Sequence[int]
    io_algorithm: str
    traces: Sequence[str]
    traffic: Traffic
    end_reqs: int | None
    notes: Sequence[str]
    prefill_blocks: Sequence[int] = ()
    decode_contexts: Sequence[int] = ()

    @property
    def engines(self) -> Iterator[tuple[str, Degrees, str, int | None]]:
        """Every combination but for traffic: model, parallelism, policy, and the chunk where the policy has one."""
        for model, degrees, name in product(self.models, self.parallelisms, self.algorithms):
            for chunk in self.chunks if name == "mixed-sarathi" else (None,):
                yield model, degrees, name, chunk

    @property
    def runs(self) -> int:
        """How many runs the lists come to."""
        traffic = len(self.traces) or len(self.traffic.tasks) * len(self.traffic.rates)
        return sum(1 for _ in self.engines) * traffic


def read_system_file(path: Path) -> SystemFile:
    """Read a file; a `UserError` tells everything that is wrong with it, with lines."""
    fields = Fields.of(read_yaml(path, "ReaLLM system file"))
    fields.only(
        {"model", "kernel_sim", "heterogeneous", "system", "system_sim", "trace_gen", "prefill_system", "decode_system"}
    )
    _refuse_two_systems(fields)
    notes: list[str] = []
    models = _texts(fields, "model")
    for model in models if fields.sound("model") else ():
        if model not in MODELS:
            fields.problem(f"{brief(model)} is unknown", "model", near_names(model, MODELS))
    blocks, contexts = _kernel_sizes(fields, notes)
    system, simulated = _section(fields, "system", notes), fields.object("system_sim")
    system.only(_SYSTEM_KEYS)
    device = system.text("device")
    parallelisms = _parallelisms(system)
    algorithms = _algorithms(system)
    io_algorithm = _io_algorithm(system)
    traces, traffic = _requests(fields, simulated, notes)
    read = SystemFile(
        path,
        models,
        device,
        _counts(system, "num_devices", MOST_NPUS),
        parallelisms,
        algorithms,
        _counts(system, "prefill_chunk", _MOST_CHUNK, default=2048),
        io_algorithm,
        traces,
        traffic,
        simulated.positive_int("end_reqs", high=_MOST_REQUESTS, default=None),
        notes,
        blocks,
        contexts,
    )
    if read.runs > MOST_RUNS:
        fields.problem(f"the lists come to {read.runs} runs", fix=f"give at most {MOST_RUNS}")
    fields.finish()
    return read


def _refuse_two_systems(fields: Fields) -> None:
    """Refuse what ReaLLM's file offers and its simulator never reads: prompts and answers on systems of their own."""
    fix = "write one system, for both"
    for name in ("prefill_system", "decode_system"):
        if fields.has(name):
            fields.problem("prompts and answers on different systems are not imported", name, fix)
    if fields.boolean("heterogeneous", default=False):
        fields.problem("prompts and answers on different systems are not imported", "heterogeneous", fix)


def _section(fields: Fields, name: str, notes: list[str]) -> Fields:
    if not fields.has(name):
        fields.problem(f"{name} is missing", fix="give device, num_devices and attention_parallelism in it")
        return Fields({}, fields.document, (name,), [])
    return fields.object(name)


def _kernel_sizes(fields: Fields, notes: list[str]) -> tuple[Sequence[int], Sequence[int]]:
    """Return the sizes of `kernel_sim`, which `orrery kernels` prices beside its own; runs do not follow them."""
    kernels = fields.object("kernel_sim")
    kernels.only(_KERNEL_KEYS)
    if fields.has("kernel_sim"):
        notes.append("kernel_sim: runs price every operator by its own size; orrery kernels fills a table of kernels")
    blocks, contexts = (
        _counts(kernels, name, _MOST_CHUNK) if kernels.has(name) else () for name in ("prefill_blocks", "decode_ctxt")
    )
    return blocks, contexts


def _parallelisms(system: Fields) -> Sequence[Degrees]:
    texts = _texts(system, "attention_parallelism")
    others = _texts(system, "ffn_parallelism", default=texts)
    if tuple(others) != tuple(texts):
        what = f"{brief(list(others))} differs from attention_parallelism {brief(list(texts))}"
        system.problem(what, "ffn_parallelism", "write the same: experts are spread by ep")
    found = []
    for text in texts if system.sound("attention_parallelism") else ():
        try:
            found.append(read_degrees(text))
        except ValueError as error:
            what, _, fix = str(error).partition("; ")
            system.problem(f"{brief(text)} {what}", "attention_parallelism", fix)
    return found


def _algorithms(system: Fields) -> Sequence[str]:
    algorithms = _texts(system, "batching_algo", default=("mixed-sarathi",))
    for name in algorithms if system.sound("batching_algo") else ():
        if name in MISSING_ALGORITHMS:
            fix = f"write {' or '.join(POLICIES)}"
            system.problem(f"{name} has no counterpart: {MISSING_ALGORITHMS[name]}", "batching_algo", fix)
        elif name not in POLICIES:
            system.problem(f"{brief(name)} is unknown", "batching_algo", near_names(name, POLICIES))
    return algorithms


def _io_algorithm(system: Fields) -> str:
    name = system.text("io_algo", default="multishot")
    if not system.sound("io_algo"):
        return name
    if name == "":
        fix = f"write one of {', '.join(IO_ALGORITHMS)}"
        system.problem("communication that costs nothing is not simulated", "io_algo", fix)
    elif name not in IO_ALGORITHMS:
        system.problem(f"{brief(name)} is unknown", "io_algo", near_names(name, IO_ALGORITHMS))
    return name


def _requests(fields: Fields, simulated: Fields, notes: list[str]) -> tuple[Sequence[str], Traffic]:
    """Return the files of requests, and what is drawn where there are none."""
    simulated.only({"sim_method", "traces", "tasks", "request_rates", "end_reqs"})
    method = simulated.choice("sim_method", ("roofline", "llmcompass"), default=None)
    if method == "llmcompass":
        notes.append("sim_method llmcompass: LLMCompass is not run, operators are priced by the roofline")
    drawn = fields.object("trace_gen")
    drawn.only({"random_seed", "tasks", "request_rates", "max_requests", "end_time"})
    traces = _texts(simulated, "traces", default=())
    named = [name for name in ("tasks", "request_rates") if simulated.has(name)]
    if traces and named:
        simulated.problem(f"{named[0]} and traces are both given", named[0], "leave one out")
    tasks = _tasks(drawn, TASKS)
    rates = _rates(drawn, default=(1.0,))
    return traces, Traffic(
        _tasks(simulated, tasks),
        _rates(simulated, default=rates),
        drawn.integer("random_seed", low=0, default=0),
        drawn.positive_int("max_requests", high=_MOST_REQUESTS, default=50_000),
        drawn.positive_number("end_time", high=_MOST_SECONDS, default=500.0),
    )


def _tasks(fields: Fields, default: Sequence[str]) -> Sequence[str]:
    tasks = _texts(fields, "tasks", default=default)
    for task in tasks if fields.sound("tasks") else ():
        if task not in TASKS:
            fields.problem(f"{brief(task)} is unknown", "tasks", near_names(task, TASKS))
    return tasks


def _texts(fields: Fields, name: str, default: Sequence[str] | None = None) -> Sequence[str]:
    """Return the text of `name`, or those of a list."""
    if isinstance(fields.values.get(name), list):
        return _distinct(fields, name, fields.texts(name))
    if default is not None and not fields.has(name):
        return default
    return (fields.text(name),)


def _counts(fields: Fields, name: str, high: int, default: int | None = None) -> Sequence[int]:
    """Return the whole number from 1 to `high` of `name`, or those of a list."""
    if isinstance(fields.values.get(name), list):
        return _distinct(fields, name, fields.integers(name, low=1, high=high))
    if default is not None and not fields.has(name):
        return (default,)
    return (fields.positive_int(name, high=high),)


def _rates(fields: Fields, default: Sequence[float]) -> Sequence[float]:
    """Return the requests/s of `request_rates`, or those of a list."""
    name = "request_rates"
    if isinstance(fields.values.get(name), list):
        return _distinct(fields, name, fields.numbers(name, low=_LEAST_RATE, high=_MOST_RATE))
    if not fields.has(name):
        return default
    return (fields.number(name, low=_LEAST_RATE, high=_MOST_RATE),)


def _distinct(fields: Fields, name: str, values: Sequence[T]) -> Sequence[T]:
    """Return `values`, a list that holds something, nothing twice, and no more than anybody runs."""
    if not fields.values[name]:
        fields.problem("is an empty list", name, "write what is to be run")
    if len(values) > MOST_LISTED:
        fields.problem(f"{len(values)} values", name, f"give at most {MOST_LISTED}")
        return values[:MOST_LISTED]
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        fields.problem(f"{brief(twice[0])} stands there twice", name, "leave one out")
    return values

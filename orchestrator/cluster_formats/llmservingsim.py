"""The cluster JSON of LLMServingSim: nodes, and in each of them instances, every one an engine.

Source of the format: `docs/docs/reference/cluster-config.md` and `serving/core/config_builder.py` of
github.com/casys-kaist/LLMServingSim (August 2026). What an instance says of model, device, parallelism and scheduler
are settings; memory sizes are GiB there (2^30). Its scheduler is vLLM's, so ours is. Figures by which that simulator
is fitted to measurements (`mem_util`, links) are read and left aside: our memory is shared as vLLM shares it, and links
are the device's, or the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from foundation.documents import Document, read_json
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.key_paths import shown_key_path
from foundation.records import dataclass
from foundation.settings.reading import Given, Layers, Values
from orchestrator.settings.engine import MOST_NPUS

WHAT = "cluster configuration"
OVERRIDES = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "long_prefill_token_threshold",
    "block_size",
    "dtype",
    "kv_cache_dtype",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "reserve_full_isl",
)
"""What an instance may say of its scheduler and numbers, by the names of our settings."""
OFFLOADING = ("enable_local_offloading", "enable_attn_offloading", "enable_sub_batch_interleaving")
"""What an instance may ask for that is not simulated."""
ROLES = ("prefill", "decode")
_DEGREES = ("num_npus", "tp_size", "pp_size", "ep_size")
_INSTANCE = ("model_name", "hardware", "npu_mem", *_DEGREES, "dp_group", "pd_type", "placement", "enable_block_copy")


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: the settings of its engine, and what joins it to others (None: nothing)."""

    settings: Mapping[str, Given]
    members: Given
    """Where it says, or could say, with how many it is together."""
    dp_group: Given | None = None


@dataclass(slots=True)
class _Reading:
    """One file: its document, and what was found in it."""

    document: Document
    problems: list[UserError]
    left_aside: set[str] = field(default_factory=set)
    not_simulated: set[str] = field(default_factory=set)

    def given(self, fields: Fields, name: str, value: Any = None) -> Given:
        """Return the value of a field (or what it means) with its place."""
        place = (*fields.place, name)
        stated = fields.values.get(name) if value is None else value
        return Given(stated, shown_key_path(place), path=self.document.path, line=self.document.line(place))


def read_cluster_config(path: Path) -> Layers:
    """Return the engines, each as an entry of the list `engines`, and what holds for all of them.

    A file that is no JSON object is a `UserError`; what is wrong inside is in `Layers.problems`.
    """
    document = read_json(path, WHAT)
    top = Fields.of(document)
    reading = _Reading(document, top.problems)
    top.only({"num_nodes", "link_bw", "link_latency", "nodes", "cxl_mem"})
    _pass_over(top, "cxl_mem", reading)
    _links(top, reading)
    _count(top, "num_nodes", "nodes")
    instances = [one for node in top.objects("nodes") for one in _node(node, reading)]
    engines = list(engines_of(instances, top.problems))
    shared = {"scheduling": Given("vllm", WHAT, path=path)}
    lists = {"engines": engines} if engines else {}
    return Layers(file=shared, lists=lists, problems=top.problems, notes=list(_notes(path, reading)))


def _notes(path: Path, reading: _Reading) -> Iterator[str]:
    """Yield what a user should know of what is read and not used."""
    if reading.left_aside:
        yield (
            f"{path}: {', '.join(sorted(reading.left_aside))} are that simulator's calibrations and not used; KV "
            "memory is what vLLM would take of the device, links are the device's own or those of --network, --node, "
            "--link_bw"
        )
    if reading.not_simulated:
        yield f"{path}: {', '.join(sorted(reading.not_simulated))} is not simulated"


def engines_of(instances: Sequence[Instance], problems: list[UserError]) -> Iterator[Values]:
    """Yield the settings of every engine that the instances are.

    The one place that decides what instances are together: members of a `dp_group` are one engine with
    ``data_parallel_size`` = their number and of expert parallelism over all of them (`ep_size` is the whole group's),
    which stands where the first of them does.
    """
    groups: dict[str, list[Instance]] = {}
    for one in instances:
        if one.dp_group is not None:
            groups.setdefault(one.dp_group.value, []).append(one)
    for one in instances:
        together = [one] if one.dp_group is None else groups[one.dp_group.value]
        if one is together[0]:
            problems += _unlike(together)
            yield {**one.settings, "data_parallel_size": replace(one.members, value=len(together))}


def _unlike(members: Sequence[Instance]) -> Iterator[UserError]:
    """Yield what a member of a group says otherwise than its first, each name once."""
    first, told = members[0].settings, set()
    for other in members[1:]:
        for name in dict.fromkeys((*first, *other.settings)):
            one, same = first.get(name), other.settings.get(name)
            if name not in told and (None if one is None else one.value) != (None if same is None else same.value):
                told.add(name)
                blamed = same or other.members
                what = f"makes {name} another than that of the first instance of the dp_group"
                yield blamed.problem(what, "make the members of a group alike")


def _pass_over(fields: Fields, name: str, reading: _Reading) -> None:
    """Take note of a field that describes what is not simulated, whatever stands in it."""
    if fields.has(name):
        reading.not_simulated.add(name)


def _links(top: Fields, reading: _Reading) -> None:
    """Check what is said of links: one number, or a list with one a dimension."""
    for name in ("link_bw", "link_latency"):
        if isinstance(top.values.get(name), list):
            found: Sequence[float] = top.numbers(name, low=0)
        else:
            found = [top.number(name, low=0, default=0.0)]
        if top.has(name) and found:
            reading.left_aside.add(name)


def _count(fields: Fields, count: str, name: str) -> None:
    """Check that a list has as many items as the file says it has."""
    items = fields.items(name)
    said = fields.integer(count, low=0, default=len(items))
    if not items and fields.sound(name):
        fields.problem("nothing is in it", name, "describe at least one")
    elif fields.sound(count, name) and said != len(items):
        fields.problem(f"{said}, but {name} has {len(items)}", count, f"write {len(items)}")


def _node(node: Fields, reading: _Reading) -> Iterator[Instance]:
    node.only({"num_instances", "cpu_mem", "instances", "power"})
    _count(node, "num_instances", "instances")
    _pass_over(node, "power", reading)
    host = node.object("cpu_mem")
    host.only({"mem_size", "mem_bw", "mem_latency", "pim_config"})
    _pass_over(host, "pim_config", reading)
    bandwidth = host.number("mem_bw", low=1, default=None)
    host.number("mem_size", low=0, default=None)
    host.number("mem_latency", low=0, default=None)
    shared = {} if bandwidth is None else {"remote_bw": reading.given(host, "mem_bw", round(bandwidth))}
    for one in node.objects("instances"):
        yield _instance(one, reading, shared)


def _instance(one: Fields, reading: _Reading, shared: Mapping[str, Given]) -> Instance:
    one.only({*_INSTANCE, *OVERRIDES, *OFFLOADING})
    settings = dict(shared)
    for name in ("model_name", "hardware"):
        one.text(name)
        if one.sound(name):
            settings[name] = reading.given(one, name)
    settings |= {name: reading.given(one, name) for name in OVERRIDES if one.has(name)}
    settings |= _parallelism(one, reading)
    settings |= _memory(one, reading)
    _check_placement(one)
    for name in OFFLOADING:
        if one.boolean(name, default=False) and one.sound(name):
            one.problem("this offloading is not simulated", name, "write false")
    one.boolean("enable_block_copy", default=True)
    group, role = one.text("dp_group", default=None), one.choice("pd_type", ROLES, default=None)
    if role is not None and one.values["pd_type"] in ROLES:
        settings = {**settings, "role": reading.given(one, "pd_type")}
    return Instance(
        settings,
        reading.given(one, "dp_group", 1),
        reading.given(one, "dp_group") if group is not None and one.sound("dp_group") else None,
    )


def _parallelism(one: Fields, reading: _Reading) -> dict[str, Given]:
    """Return the degrees; of NPUs, tensor and pipeline parallelism a file may leave out what follows."""
    npus, tensor, stages, experts = (one.positive_int(name, high=MOST_NPUS, default=None) for name in _DEGREES)
    if not one.sound(*_DEGREES):
        return {}
    if npus is not None and tensor is not None and npus % tensor:
        one.problem(f"{tensor} does not divide num_npus {npus}", "tp_size", f"use one of {_divisors(npus)}")
        return {}
    if npus is not None and tensor is None and npus % (stages or 1):
        one.problem(f"{stages} does not divide num_npus {npus}", "pp_size", f"use one of {_divisors(npus)}")
        return {}
    if npus is not None and tensor is not None and stages not in (None, 1, npus // tensor):
        what = f"{stages} stages of tp_size {tensor} are not num_npus {npus}"
        one.problem(what, "pp_size", f"write {npus // tensor}")
        return {}
    if tensor is None:
        tensor = (npus or 1) // (stages or 1)
    if npus is not None:
        stages = npus // tensor
    blamed = {name: name if one.has(name) else "num_npus" for name in ("tp_size", "pp_size")}
    found = {
        "tensor_parallel_size": reading.given(one, blamed["tp_size"], tensor),
        "pipeline_parallel_size": reading.given(one, blamed["pp_size"], stages or 1),
    }
    if experts is not None:
        found["ep_size"] = reading.given(one, "ep_size")
    return found


def _divisors(number: int) -> str:
    return ", ".join(str(one) for one in range(1, min(number, 1024) + 1) if number % one == 0)


def _memory(one: Fields, reading: _Reading) -> dict[str, Given]:
    """Return the NPU's memory: its bandwidth, and its size where that is another than the device's."""
    memory = one.object("npu_mem")
    memory.only({"mem_size", "mem_bw", "mem_latency", "mem_util"})
    size = memory.positive_number("mem_size", default=None)
    bandwidth = memory.positive_number("mem_bw", default=None)
    memory.number("mem_latency", low=0, default=None)
    if memory.number("mem_util", high=1, above=0, default=None) is not None:
        reading.left_aside.add("mem_util")
    found = {}
    if bandwidth is not None and memory.sound("mem_bw"):
        found["local_bw"] = reading.given(memory, "mem_bw")
    if size is not None and memory.sound("mem_size") and not _is_devices(size, one.values.get("hardware")):
        found["npu_mem"] = reading.given(memory, "mem_size", size * 2**30 / 1e9)
    return found


def _is_devices(size: float, hardware: object) -> bool:
    """Whether `size` is what the device's datasheet says, be it GB or GiB."""
    from trace_gen.hardware import load_hardware

    try:
        memory = load_hardware(str(hardware)).memory_bytes
    except UserError:
        return False  # it is told when the engine is put together
    return round(size * 2**30) == memory or round(size * 10**9) == memory


def _check_placement(one: Fields) -> None:
    """Refuse weights and KV cache anywhere but in the NPU's memory; what is evicted goes to the host."""
    placement = one.object("placement")
    placement.only({"default", "blocks", "layers"})
    layers = placement.object("layers")
    rules = [placement.object("default"), *placement.objects("blocks"), *map(layers.object, layers.names())]
    for rule in rules:
        rule.only({"blocks", "weights", "kv_loc", "kv_evict_loc"})
        for name, right in (("weights", "npu"), ("kv_loc", "npu"), ("kv_evict_loc", "cpu")):
            where = rule.text(name, default=right)
            if rule.sound(name) and where != right:
                rule.problem(f"{where!r} is not simulated", name, f'write "{right}"')

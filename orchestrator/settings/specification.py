"""A run, specified: its engines, workload and output as typed records, and the ways to make one.

    RunSpec.of(model_name="openai-community/gpt2", scheduling="vllm")     values by the names of the flags
    from_flags(["--npu_num", "4"])                                        a command line, with --settings FILE
    RunSpec(engines=(EngineSpec(scheduling=VllmSettings()),))             the records themselves; `check` them

One engine is the plain case, and what flags describe. A file may list several under `engines`; what stands beside the
list holds for all that do not say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from converters.backend import BackendFactory
from foundation.errors import InternalError, UserError
from foundation.records import dataclass
from foundation.settings import Setting, choice, records, section, setting
from foundation.settings.catalogue import Catalogue, catalogue
from foundation.settings.command_line import parse
from foundation.settings.narrowing import narrowed
from foundation.settings.reading import Given, Layers, Problem, choice_names, read
from foundation.settings.values import WrongValueError, from_value
from orchestrator.backends import backends
from orchestrator.clients import ClientSettings, clients
from orchestrator.cluster.admission import GateSettings, gates
from orchestrator.cluster.affinity import SessionAffinity
from orchestrator.cluster.autoscaling import ScalingSettings, autoscalers
from orchestrator.cluster.router import Router, RouterPlace, RouterSettings, WatchingRouter, routers
from orchestrator.cluster_formats.files import CLUSTER_FILES, ClusterFiles
from orchestrator.schedulers.settings import Policy, policies
from orchestrator.settings.engine import (
    MOST_ENGINES,
    MemorySettings,
    ModelSettings,
    NetworkSettings,
    ParallelismSettings,
    Role,
)
from orchestrator.settings.host import HostSettings
from orchestrator.settings.noise import NoiseSettings
from orchestrator.settings.roles import wrong_roles
from orchestrator.settings.run import ExecutionSettings, OutputSettings, TransferSettings, WorkloadSettings
from orchestrator.settings.tiers import TierSettings
from orchestrator.traffic.settings import TrafficSettings
from trace_gen.mlp.routings import RoutingSettings, routings
from trace_gen.perf_models import PerfModelSettings, perf_models


@dataclass(frozen=True)
class EngineSpec:
    """One engine, or several like it."""

    model: ModelSettings = section(ModelSettings, "Model and hardware")
    perf_model: PerfModelSettings = choice(
        perf_models,
        None,
        "where latencies come from",
        title="Model and hardware",
        otherwise="roofline",
        shown_default="what the given table or profile needs, else roofline",
    )
    parallelism: ParallelismSettings = section(ParallelismSettings, "Parallelism and memory")
    expert_routing: RoutingSettings = choice(
        routings,
        None,
        "how tokens choose experts",
        title="Parallelism and memory",
        otherwise="balanced",
        shown_default="balanced; file with a recording",
    )
    network: NetworkSettings = section(NetworkSettings, "Network, host memory")
    scheduling: Policy = choice(
        policies,
        "orca",
        "who is served when",
        title="Scheduling",
    )
    memory: MemorySettings = section(MemorySettings, "Scheduling")
    host: HostSettings = section(HostSettings, "Host and graphs")
    tier: TierSettings = section(TierSettings, "Memory tiers")
    backend: BackendFactory = choice(backends, "embedded", "what simulates the graphs", title="Backend")
    cross_check: BackendFactory | None = choice(
        backends,
        None,
        "a second backend that simulates every graph too; the first difference stops",
        title="Backend",
        bearing="way",
    )

    instances: int = setting(
        1,
        "engines like this one, each with its own NPUs",
        least=1,
        most=MOST_ENGINES,
        title="Cluster",
    )

    @property
    def engines(self) -> int:
        """How many engines it is on the clock."""
        return self.instances * self.parallelism.data

    @property
    def block_size(self) -> int:
        """Tokens in a KV block."""
        return self.memory.block_size or self.scheduling.block_size

    @property
    def names(self) -> dict[str, str]:
        """The names of the choices that were made, by the setting that makes them."""
        return choice_names(self)

    role: Role = setting(
        "both",
        "what the engine does for a request: all, its prompt only, or all that comes after it",
        choices=("both", "prefill", "decode"),
        title="Cluster",
    )

    def problems(self) -> Iterator[Problem]:
        """The parallelism is one that the policy may be called with."""
        only = getattr(self.scheduling, "only_parallel", None)
        if only not in (None, self.parallelism.parallel):
            name = policies.name_of(type(self.scheduling))
            what = f"{self.parallelism.parallel} conflicts with --scheduling {name}, which implies {only}"
            yield Problem("parallel", what, "leave it out")
        if self.tier.given:
            yield from self._unsuited_tier()
        page = getattr(self.scheduling, "page_size", None)
        if page is not None and self.memory.block_size not in (None, page):
            yield Problem("page_size", f"{page} conflicts with --block_size {self.memory.block_size}", "leave one out")

    def _unsuited_tier(self) -> Iterator[Problem]:
        """Return why the engine has no use for a KV tier."""
        policy, what = self.scheduling, f"{self.tier.kv_tier} with --scheduling {self.names['scheduling']}"
        if policy.swaps:
            return
        if hasattr(policy, "kv_manage") or hasattr(policy, "preemption_mode"):
            fix = "give --preemption_mode swap" if hasattr(policy, "preemption_mode") else "give --kv_manage vllm"
            yield Problem("kv_tier", f"{what}: as it is set, it evicts no KV cache to other memory", fix)
        elif policy.unconnected is not None:
            fix = "use --scheduling vllm --vllm_version 0.19 without speculation, or a policy that swaps, such as orca"
            yield Problem("kv_tier", f"{what}: {policy.unconnected}", fix)


@dataclass(frozen=True)
class RunSpec:
    """A whole run. Its values do not change; `replace` makes another."""

    engines: tuple[EngineSpec, ...] = records(EngineSpec, "several engines, each with what it does not share")
    router: RouterSettings = choice(
        routers, "round-robin", "which of several engines a request goes to", title="Cluster"
    )
    session_affinity: bool = setting(False, "requests of a session go where its first one went", title="Cluster")
    client: ClientSettings | None = choice(
        clients,
        None,
        "what a client sees besides the engine, in columns and figures of its own",
        title="Traffic",
    )
    admission: GateSettings | None = choice(gates, None, "which requests are rejected at the front", title="Cluster")
    autoscaler: ScalingSettings | None = choice(
        autoscalers, None, "how many of the instances are there at a time", title="Cluster"
    )
    decode_router: RouterSettings = choice(
        routers,
        "round-robin",
        "which engine goes on with a request whose prompt another has computed",
        title="Cluster",
    )
    transfer: TransferSettings = section(TransferSettings, "Cluster")
    workload: WorkloadSettings = section(WorkloadSettings, "Workload", grouped=True)
    traffic: TrafficSettings = section(TrafficSettings, "Traffic")
    noise: NoiseSettings = section(NoiseSettings, "Noise")
    execution: ExecutionSettings = section(ExecutionSettings, "Backend")
    output: OutputSettings = section(OutputSettings, "Output")
    plugin: Path | None = setting(
        None,
        "Python file (or a folder of them) that adds policies, routers, performance models, backends or families",
        folder=True,
    )

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return the run with the values given by the names of the flags; a `UserError` tells all that is wrong."""
        _load_plugin(values.get("plugin"))
        known = catalogue(cls)
        lists = {name: values.pop(name) for name in known.lists if name in values}
        entries = {name: [_given(entry, known) for entry in value] for name, value in lists.items()}
        return read(cls, Layers(file=_given(values, known), lists=entries))

    def new_router(self) -> Router:
        """Return a new router of requests; settings that do not suit the engines are a `UserError`."""
        count = sum(one.engines for one in self.engines if one.role != "decode")
        router = self.router.router(RouterPlace(count, self.workload.seed))
        return SessionAffinity(router) if self.session_affinity else router

    def new_decode_router(self) -> Router:
        """Return a new router of requests whose prompts are computed; see `new_router`."""
        count = sum(one.engines for one in self.engines if one.role != "prefill")
        router = self.decode_router.router(RouterPlace(count, self.workload.seed))
        if isinstance(router, WatchingRouter):
            name = routers.name_of(type(self.decode_router))
            what = f"{name} looks at engines between requests that come from outside, these come from engines"
            raise UserError(what, field="--decode_router", fix="name another router")
        return router

    def problems(self) -> Iterator[Problem]:
        """Roles have their counterparts; there are as many instances as an autoscaler never drops, and may start."""
        yield from wrong_roles(self.engines)
        yield from self.workload.too_many()
        if self.execution.pricing == "compiled" and any(one.cross_check is not None for one in self.engines):
            yield Problem(
                "cross_check", "checks every iteration, which --pricing compiled does not trace", "leave one out"
            )
        if self.hands_over and self.has_tiers:
            what = "engines of the run have roles, and an engine has one connector: to others, or to a tier"
            yield Problem("kv_tier", what, "leave --kv_tier or --role out")
        there, scaling = sum(one.instances for one in self.engines), self.autoscaler
        if scaling is None:
            return
        if self.hands_over:
            yield Problem("autoscaler", "engines with roles are not started and dropped", "leave it out")
        if any(one.parallelism.data > 1 for one in self.engines):
            what = "starts and drops engines one by one, which --data_parallel_size joins"
            yield Problem("autoscaler", what, "give --instances in its place")
        for name, value in (("min_instances", scaling.min_instances), ("max_instances", scaling.max_instances)):
            if value is not None and value > there:
                yield Problem(name, f"{value}, but the run has {there}", f"give at most {there}, or more --instances")

    @property
    def hands_over(self) -> bool:
        """Whether engines hand requests over to others."""
        return any(one.role != "both" for one in self.engines)

    @property
    def has_tiers(self) -> bool:
        """Whether KV cache of any engine goes beyond device memory to a tier."""
        return any(one.tier.given for one in self.engines)

    @property
    def engine(self) -> EngineSpec:
        """The first engine; of most runs the only one."""
        return self.engines[0]


@dataclass(frozen=True)
class RunCommand:
    """What the command line of the main job holds: a run, and the files it starts from."""

    settings: Path | None = setting(
        None,
        "run file (YAML or JSON) that holds settings by the names of the flags; flags win over it",
        bearing="output",
    )
    run: RunSpec = section(RunSpec)
    files: ClusterFiles = section(ClusterFiles, "Cluster")

    def problems(self) -> Iterator[Problem]:
        """Results do not replace the files that the run starts from."""
        output = self.run.output.output
        read_files = [path for path in (self.settings, *self.files.given.values()) if path is not None]
        if output is not None and output.absolute() in [path.absolute() for path in read_files]:
            yield Problem("output", "the run reads this file", "name another file")


def from_flags(arguments: Sequence[str]) -> RunSpec:
    """Return the run that a command line asks for; a `UserError` tells everything that is wrong with it."""
    return commanded(arguments)[0]


def commanded(arguments: Sequence[str]) -> tuple[RunSpec, Layers]:
    """Return the run that a command line asks for, and what was given for it; see `from_flags`.

    Flags alone, rightly given, are read by the records that they choose, without a look at all the others.
    """
    known = narrowed(RunCommand, arguments, whole_for={"settings", "plugin", *CLUSTER_FILES})
    if known is not None:
        with suppress(UserError):  # told below, by those who know what else there is
            layers = Layers(flags=parse(arguments, known))
            return read(RunCommand, layers, known).run, layers
    layers = given_by(arguments)
    return read(RunCommand, layers).run, layers


def given_by(arguments: Sequence[str]) -> Layers:
    """Return what a command line gives, by itself and by the run file that it names; a plugin is loaded beforehand."""
    layers = _taken_apart(arguments)
    plugin = {**layers.file, **layers.flags}.get("plugin")
    if plugin is not None and _load_plugin(plugin.value):
        return _taken_apart(arguments)  # again, for the plugin knows names that nobody knew
    return layers


def _taken_apart(arguments: Sequence[str]) -> Layers:
    given = parse(arguments, catalogue(RunCommand))
    layers = Layers()
    if "settings" in given and given["settings"].value:
        from foundation.settings.files import read_file

        layers = read_file(Path(str(given["settings"].value)), catalogue(RunSpec))
        if "settings" in layers.file:
            raise layers.file["settings"].problem("a run file starts from no other", "give it with --settings")
    files = {name: Path(str(given[name].value)) for name in CLUSTER_FILES if name in given and given[name].value}
    if files.keys() & {"cluster_config", "engine_config"}:
        from orchestrator.cluster_formats.joining import joined

        return joined(files, layers, given, catalogue(RunSpec))
    return replace(layers, flags=given)


def _load_plugin(name: object) -> bool:
    """Load a plugin by name and return whether it is new; what can be no path is left to the reading, which says so."""
    setting_of_it = catalogue(RunSpec).entries["plugin"].declaration
    assert isinstance(setting_of_it, Setting)
    try:
        path = from_value(setting_of_it, name)
    except WrongValueError:
        return False
    from foundation.plugins import load_plugin

    if path is None or not load_plugin(path):
        return False
    try:
        catalogue(RunSpec)
    except InternalError as error:
        raise UserError(f"the plugin declares settings wrongly: {error}", path=path) from error
    return True


def _given(values: dict[str, Any], known: Catalogue) -> dict[str, Given]:
    found = {}
    for name, value in values.items():
        spelling = known.spellings.get(name)
        negated = spelling is not None and spelling.negated and isinstance(value, bool)
        if value is not None:
            found[spelling.name if spelling else name] = Given(not value if negated else value, name)
    return found

"""A run, from its specification to its result: the one way in for the command line and for programs.

    deploy (every check) -> workload read and checked -> observers begin -> the clock runs, observers hear -> they end

    from orchestrator import RunSpec, Simulation

    result = Simulation(RunSpec.of(model_name="gpt2", scheduling="vllm")).run()
    print(result.summary.ttft_ms, result.requests)

What fails in mid-run loses nothing that was finished: the result is made, observers hear it, then the error goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from foundation.errors import InternalError, OrreryError, SimulationError, UserError, raise_all
from foundation.settings.reading import check
from orchestrator.cluster.cluster import Cluster
from orchestrator.deployed_roles import check_pairs, disaggregation
from orchestrator.deployed_tiers import check_groups, tiers_of
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment, Started
from orchestrator.engine.compiled.covering import compiled_kinds
from orchestrator.engine.interface import AnyEngine, KeepsTokenTimes
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import Aborted, CompletedBatch, DummyPass, Rejected, Transferred
from orchestrator.introduction import notes
from orchestrator.lookups import lookup_figures
from orchestrator.moved_arrivals import moved
from orchestrator.observers.account import TimeRecorder
from orchestrator.observers.interface import FinishedRows, Observer, Run, Stop, hooks
from orchestrator.observers.intervals import Interval, Intervals
from orchestrator.observers.overload import OverloadWatch
from orchestrator.observers.requests import RequestRecorder
from orchestrator.request_source import open_source
from orchestrator.result import RunResult, TurnedAway
from orchestrator.settings.places import of_engine
from orchestrator.settings.specification import RunSpec
from orchestrator.stopwatch import Stopwatch
from orchestrator.summary import RunFacts, summarise
from orchestrator.traffic.building import check_times, make_traffic
from orchestrator.traffic.figures import traffic_figures
from orchestrator.workload import ADAPTER_COLUMN

if TYPE_CHECKING:
    from orchestrator.cluster.disaggregation import Disaggregation
    from orchestrator.cluster.tiers import Tiers
    from orchestrator.cluster.waves import Waves

Failure = OrreryError | KeyboardInterrupt
Value = TypeVar("Value")


class Simulation:
    """One run of `spec`, told to `observers` in the order given. `notes`: of the files that it was read from."""

    def __init__(self, spec: RunSpec, observers: Sequence[Observer] = (), *, notes: Sequence[str] = ()) -> None:
        self.spec = spec
        self._notes = tuple(notes)
        self.result: RunResult | None = None
        self._observers = tuple(observers)

    def run(self) -> RunResult:
        """Simulate and return the result, which `result` holds, too.

        Wrong input is a `foundation.errors.UserError` before anything is written or said. What fails in mid-run is
        raised after observers were told of the result until then. A run that an observer stopped ends in order.
        """
        stopwatch = Stopwatch()
        with ExitStack() as observing, ExitStack() as running:
            with stopwatch.measure("set-up"):
                run = replace(prepare(self.spec), notes=self._notes)
                between, tiers = disaggregation(self.spec), tiers_of(self.spec)
                compiled = compiled_kinds(run, self._observers)
                started = _start(run, running, stopwatch, between, tiers, compiled)
            for observer in self._observers:
                observing.callback(observer.close)
                observer.begin(run)
            engines = sorted((engine for one in started for engine in one.engines), key=lambda engine: engine.number)
            waves = [group for one in started for group in one.waves]
            going = _Going(run, engines, self._observers, between, waves, tiers)
            ending = going.simulate()
            counted = _added(one.statistics() for one in started)
            running.close()
            self.result = replace(going.result(ending), backend=counted, wall_ms=stopwatch.milliseconds())
            for observer in self._observers:
                observer.end(self.result)
        if self.result.error is not None:
            raise self.result.error
        return self.result


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return dict(total)


def prepare(spec: RunSpec) -> Run:
    """Check everything and return what is about to be simulated; whatever is wrong is a `UserError`."""
    check(spec)
    spec.new_router()
    spec.new_decode_router()
    deploying = Deploying(spec)
    listed = _deployed(spec, deploying)
    kinds = list(dict.fromkeys(listed))
    if spec.hands_over:
        check_pairs(kinds)
    check_groups([one.engine for one in kinds])
    source = open_source(
        spec.workload,
        lambda request: next((unfit for one in kinds if (unfit := one.refuses(request)) is not None), None),
        lambda longest: all(one.unfit(longest) is None for one in kinds),
        retrieved=spec.traffic.rag_tokens or 0,
    )
    source = moved(source, spec.noise)
    check_times(source, spec.traffic)
    if len({one.computes_prompts for one in kinds}) > 1:
        raise UserError(
            "some engines compute prompts and some do not", field="--gen", fix="give it for all or for none"
        )
    if source.table.adapter is not None and any(one.engine.scheduling.adapter_slots is None for one in kinds):
        what, fix = "requests have LoRA adapters, and there are engines that serve none", "give --enable_lora"
        if spec.workload.lora_adapters:
            raise UserError(what, field="--lora_adapters", fix=fix)
        raise UserError(what, path=spec.workload.dataset, field=ADAPTER_COLUMN, fix=fix)
    counts = [deploying.apart(given).instances for given in spec.engines]
    engines = tuple(replace(one.engine, instances=count) for one, count in zip(listed, counts, strict=True))
    deployments = [
        one for one, count in zip(listed, counts, strict=True) for _ in range(count * one.engine.parallelism.data)
    ]
    return Run(spec, replace(spec, engines=engines, workload=spec.workload.decided()), deployments, source)


def _deployed(spec: RunSpec, deploying: Deploying) -> list[Deployment]:
    """Deploy what the run lists; of several, an error says which, of all that are wrong."""
    listed: list[Deployment] = []
    problems: list[UserError] = []
    for place, engine in enumerate(spec.engines):
        try:
            listed.append(deploying.deploy(deploying.apart(engine)))
        except UserError as error:
            if len(spec.engines) == 1:
                raise
            problems += [of_engine(place, one) for one in error.problems]
    raise_all(problems)
    return listed


def _start(
    run: Run,
    stack: ExitStack,
    stopwatch: Stopwatch,
    between: Disaggregation | None,
    tiers: Tiers | None,
    compiled: Collection[Deployment],
) -> list[Started]:
    """Start the engines, kind after kind, each with the number of its place; those of `compiled` as such loops."""
    kinds, traces = run.places(), run.spec.execution.trace_dir
    started: list[Started] = []
    for one, places in kinds.items():
        own = traces / f"engine{places[0]}" if traces is not None and len(kinds) > 1 else traces
        loops = one in compiled
        started.append(one.start(stack, stopwatch, places, traces=own, between=between, tiers=tiers, compiled=loops))
    return started


class _Going:
    """A run under way: the clock, what is always recorded, and the observers."""

    def __init__(
        self,
        run: Run,
        engines: Sequence[AnyEngine],
        observers: Sequence[Observer],
        between: Disaggregation | None,
        waves: Sequence[Waves],
        tiers: Tiers | None,
    ) -> None:
        self._run = run
        self._engines = engines
        self._traffic = make_traffic(run)
        router, traffic = run.spec.new_router(), self._traffic
        self._cluster = Cluster(engines, router, traffic.source, traffic.rules, between, waves, tiers)
        self._tiers = tiers
        keep_itl = any(one.wants_itl for one in observers)
        self._recorder = RequestRecorder(keep_itl=keep_itl)
        for engine in engines:
            if keep_itl and isinstance(engine, KeepsTokenTimes):
                engine.keep_token_times()
        self._time = TimeRecorder([engine.classes for engine in engines])
        self._overload = OverloadWatch(run.source, closed=run.spec.traffic.closed)
        self._intervals = Intervals(run.spec.output.log_interval_ns)
        self._kept_intervals: list[Interval] = []
        self._turned_away: list[TurnedAway] = []
        everyone = (self._recorder, self._time, self._overload, self._intervals, *observers)
        self._hear_batch = hooks(everyone, "batch")
        self._hear_iterations = hooks(everyone, "iterations")
        self._hear_dummy = hooks(everyone, "dummy")
        self._hear_turned_away = hooks(everyone, "turned_away")
        self._hear_transferred = hooks(everyone, "transferred")
        self._hear_finished = hooks(everyone, "finished")
        self._hear_interval = hooks(everyone, "interval")

    def simulate(self) -> Stop | Failure | None:
        """Simulate to the end and return None, or why it ended early."""
        ending: Stop | Failure | None = None
        try:
            self._listen(self._cluster)
            self._check_ended()
        except (Stop, OrreryError, KeyboardInterrupt) as error:
            ending = error
        self._close(None, last=True)
        return ending

    def result(self, ending: Stop | Failure | None) -> RunResult:
        """Return what was measured."""
        recorder, run = self._recorder, self._run
        end_ns = recorder.totals.end_ns
        figures = traffic_figures(run, self._traffic, self._cluster, end_ns)
        account = self._time.account(end_ns, figures.asleep_ns)
        error = ending if not isinstance(ending, Stop) else None
        return RunResult(
            spec=run.spec,
            summary=summarise(
                recorder,
                account,
                _facts(run, ending),
                figures.summary,
                None if self._tiers is None else self._tiers.figures(),
                lookup_figures(run),
                None if run.spec.client is None else run.spec.client.terms(),
            ),
            columns=recorder.columns(),
            unfinished=recorder.unfinished(),
            itl_ns=recorder.itl.columns(),
            intervals=self._kept_intervals,
            time=account,
            turned_away=self._turned_away,
            notes=(*notes(run), *self._overload.notes(end_ns)),
            stopped=str(ending) if isinstance(ending, Stop) else None,
            error=error,
        )

    def _listen(self, cluster: Cluster) -> None:
        """Tell observers what the clock tells, intervals when nothing more can fall into them."""
        length = self._run.spec.output.log_interval_ns
        due = length
        for told in cluster.run():
            if isinstance(told, CompletedBatch):
                for hear in self._hear_batch:
                    hear(told)
            elif isinstance(told, Iterations):
                for hear_iterations in self._hear_iterations:
                    hear_iterations(told)
            elif isinstance(told, DummyPass):
                for hear_dummy in self._hear_dummy:
                    hear_dummy(told)
            elif isinstance(told, Transferred):
                for tell in self._hear_transferred:
                    tell(told)
            else:
                self._turn_away(told)
            if cluster.now >= due:
                self._close(cluster.told_until())
                due = (cluster.now // length + 1) * length
            elif self._recorder.due():
                self._tell_finished(cluster.told_until())

    def _turn_away(self, told: Rejected | Aborted) -> None:
        request = told.request
        reason = told.reason if isinstance(told, Rejected) else "its client gave it up"
        self._turned_away.append(
            TurnedAway(
                request.id,
                request.arrival_ns,
                request.prompt_tokens,
                request.output_tokens,
                told.now,
                told.engine,
                reason,
            )
        )
        for hear in self._hear_turned_away:
            hear(told)

    def _close(self, until_ns: int | None, *, last: bool = False) -> None:
        """Tell what is known for good: requests that have finished, then intervals that are over.

        At the `last` time there is nothing left to stop.
        """
        with suppress(Stop) if last else nullcontext():
            self._tell_finished(until_ns)
        for interval in self._intervals.complete(until_ns):
            self._kept_intervals.append(interval)
            for hear in self._hear_interval:
                with suppress(Stop) if last else nullcontext():
                    hear(interval)

    def _tell_finished(self, until_ns: int | None) -> None:
        rows: FinishedRows | None = self._recorder.hand_on(until_ns)
        if rows is None:
            return
        stop: Stop | None = None
        for hear in self._hear_finished:
            try:
                hear(rows)
            except Stop as raised:
                stop = stop or raised
        if stop is not None:
            raise stop

    def _check_ended(self) -> None:
        for engine in self._engines:
            usage = engine.usage()
            if not engine.idle():
                raise SimulationError(
                    f"the scheduler stalled at {engine.now / 1e9:.6f} s: {usage.running} running and {usage.waiting} "
                    f"waiting requests, {usage.free_blocks} of {usage.total_blocks} KV blocks free"
                )
            if usage.free_blocks != usage.total_blocks:
                raise InternalError(f"{usage.total_blocks - usage.free_blocks} KV blocks were never freed")


def _facts(run: Run, ending: BaseException | None) -> RunFacts:
    kinds = run.kinds()
    shared = [one.engine.parallelism for one in kinds]
    limits = _common([one.engine.scheduling.step_limits() for one in kinds])
    return RunFacts(
        model=_joined(one.model.name for one in kinds),
        hardware=_joined(one.hardware.name for one in kinds),
        npus=sum(one.engine.parallelism.npus for one in run.deployments),
        deployed=[one.system(len(places)) for one, places in run.places().items()],
        data=_common([one.data for one in shared]),
        tensor=_common([one.tensor for one in shared]),
        pipeline=_common([one.stages for one in shared]),
        context=_common([one.context for one in shared]),
        expert=_common([one.expert for one in shared]),
        engines=len(run.deployments),
        step_limits=limits or {},
        skipped=run.source.skipped,
        error=None if ending is None else str(ending) or "interrupted",
    )


def _common(values: Sequence[Value]) -> Value | None:
    """Return what all values are, None where they differ."""
    return values[0] if all(value == values[0] for value in values) else None


def _joined(names: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(names))

"""One run of the main job, from settings to files and a summary.

    deploy (every check) -> workload checked -> simulate: arrivals in, completed batches out -> files, summary

A backend that fails in mid-run loses nothing that was finished: the files are written, then the error goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from foundation.errors import InternalError, OrreryError, SimulationError, UserError
from orchestrator.console import Console
from orchestrator.deployment import Deployment, deploy
from orchestrator.instance import CompletedBatch, Instance
from orchestrator.intervals import Interval, Intervals
from orchestrator.metrics import Metrics
from orchestrator.report.files import write_report
from orchestrator.report.history import History
from orchestrator.request import Request
from orchestrator.request_source import RequestSource, open_source
from orchestrator.results import companions, write_record, write_requests, write_simulation_time, write_throughput
from orchestrator.settings.engine import NetworkSettings
from orchestrator.settings.record import input_paths, repeating
from orchestrator.settings.run import OutputSettings
from orchestrator.settings.specification import RunSpec
from orchestrator.stopwatch import Stopwatch
from orchestrator.summary import RunFacts, print_summary, summarise
from trace_gen.hardware import Hardware


class Recorder:
    """Takes completed batches: measures, cuts intervals, prints."""

    def __init__(self, settings: OutputSettings, console: Console) -> None:
        written = settings.output is not None
        self.metrics = Metrics(keep_itl=settings.itl == "list" and written)
        self.intervals: list[Interval] = []
        self.history = History() if settings.report and written else None
        self._cutter = Intervals(settings.log_interval_ns)
        self._console = console

    def record(self, done: CompletedBatch) -> None:
        """Take one batch."""
        self._console.batch(self.metrics.totals.iterations, done)
        self.metrics.record(done)
        if self.history is not None:
            self.history.record(done)
        self._keep(self._cutter.record(done))

    def finish(self) -> None:
        """Close the last interval."""
        self._keep(self._cutter.finish())

    def _keep(self, intervals: list[Interval]) -> None:
        self.intervals += intervals
        self._console.intervals(intervals)


def run(spec: RunSpec, stream: TextIO) -> dict[str, Any]:
    """Simulate, write the files, print to `stream`; return the summary.

    Wrong input is a `UserError` before anything is written. An error in mid-run is raised after what was finished has
    been written.
    """
    stopwatch, console = Stopwatch(), Console(stream, verbose=spec.output.verbose)
    recorder = Recorder(spec.output, console)
    with ExitStack() as stack:
        with stopwatch.measure("set-up"):
            deployment = deploy(spec)
            source = open_source(spec.workload, deployment.scheduler)
            try:
                _check_writable(spec)
            except PermissionError as error:
                raise UserError("the folder cannot be entered", path=error.filename, fix="name another") from error
            instance = deployment.start(stack, stopwatch, console.say)
        if spec.output.write_configs is not None:
            deployment.configurations.write(spec.output.write_configs)
        _introduce(console, deployment, source)
        failure = _simulate(instance, deployment, source, recorder)
    recorder.finish()
    summary = summarise(recorder.metrics, _facts(deployment, source, failure))
    milliseconds = stopwatch.milliseconds()
    _write_files(deployment, source, recorder, summary, milliseconds)
    print_summary(summary, milliseconds, stream)
    if failure is not None:
        raise failure
    return summary


def simulate(instance: Instance, requests: Iterator[Request]) -> Iterator[CompletedBatch]:
    """Route `requests` (in order of arrival) to `instance` as they arrive; yield every batch that ends."""
    for request in requests:
        yield from instance.advance(until=request.arrival_ns)
        instance.submit(request)
    yield from instance.advance()


def _simulate(
    instance: Instance, deployment: Deployment, source: RequestSource, recorder: Recorder
) -> OrreryError | KeyboardInterrupt | None:
    """Simulate to the end and return None, or why it ended early."""
    try:
        for done in simulate(instance, source.requests()):
            recorder.record(done)
        _check_ended(instance, deployment)
    except (OrreryError, KeyboardInterrupt) as error:
        return error
    return None


def _check_ended(instance: Instance, deployment: Deployment) -> None:
    if not instance.idle():
        usage = deployment.scheduler.usage()
        raise SimulationError(
            f"the scheduler stalled at {instance.now / 1e9:.6f} s: {usage.running} running and {usage.waiting} waiting "
            f"requests, {usage.free_blocks} of {usage.total_blocks} KV blocks free"
        )
    usage = deployment.scheduler.usage()
    if usage.free_blocks != usage.total_blocks:
        raise InternalError(f"{usage.total_blocks - usage.free_blocks} KV blocks were never freed")


def _check_writable(spec: RunSpec) -> None:
    """Refuse an output that could not be written, before time is spent on the simulation."""
    output = spec.output.output
    if output is not None:
        _check_replaceable(output, spec)
    folders = {"--write_configs": spec.output.write_configs, "--trace_dir": spec.execution.trace_dir}
    folders["--output"] = output.parent if output is not None else None
    for flag, folder in folders.items():
        if folder is None:
            continue
        nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError("the folder cannot be written", path=nearest, field=flag, fix="name another folder")


def _check_replaceable(output: Path, spec: RunSpec) -> None:
    """Refuse an output that stands for something else: a folder, a device, a file that the run reads."""
    if output.is_dir():
        raise UserError("is a folder", path=output, field="--output", fix="name a CSV file")
    inputs = input_paths(spec)
    for path in (output, *companions(output).values()):
        if path.exists() and not path.is_file():
            raise UserError("is not an ordinary file", path=path, field="--output", fix="name a CSV file")
        if any(path.exists() and one.exists() and path.samefile(one) for one in inputs):
            raise UserError("the run reads this file", path=path, field="--output", fix="name another file")


def _introduce(console: Console, deployment: Deployment, source: RequestSource) -> None:
    engine, space = deployment.engine, deployment.space
    weights = deployment.generator.memory.max_rank_weight_bytes
    console.say(
        f"{deployment.model.name} on {engine.parallelism.npus} x {deployment.hardware.name} "
        f"({engine.parallelism.layout}), {engine.model.bits}-bit; scheduling {engine.names['scheduling']}, "
        f"backend {engine.names['backend']}"
    )
    console.say(
        f"memory of an NPU: {deployment.memory_bytes / 1e9:.2f} GB, weights {weights / 1e9:.2f} GB; KV cache: "
        f"{space.total_blocks} blocks of {space.block_size} tokens, "
        f"{space.total_blocks * space.block_bytes / 1e9:.2f} GB over all NPUs"
    )
    if engine.parallelism.npus > 1:
        console.say(f"links: {_links(engine.network, deployment.hardware)}")
    console.say(f"workload: {source.described}")
    for warning in (*deployment.generator.warnings, *deployment.configurations.notes):
        console.say(f"note: {warning}")
    beyond = source.longer_than(deployment.model.max_position)
    if beyond and not engine.scheduling.ends_at_longest:
        console.say(f"note: {beyond} requests go beyond the model's {deployment.model.max_position} positions")
    if source.skipped:
        console.say(f"note: {source.skipped} requests that can never fit are skipped")


def _links(network: NetworkSettings, hardware: Hardware) -> str:
    """Return which links are assumed."""
    if network.network is not None or network.link_bw is None:
        return f"{network.network}"
    own = network.decided(hardware.link_bandwidth, hardware.link_latency_ns) == NetworkSettings(
        system=network.system, remote_memory=network.remote_memory, remote_bw=network.remote_bw
    ).decided(hardware.link_bandwidth, hardware.link_latency_ns)
    whose = f", {hardware.name}'s own" if own else ""
    return f"{network.link_bw * 2**30 / 1e9:g} GB/s (1e9) a direction, {network.link_latency:g} ns{whose}"


def _facts(deployment: Deployment, source: RequestSource, failure: BaseException | None) -> RunFacts:
    shared = deployment.engine.parallelism
    error = None if failure is None else str(failure) or "interrupted"
    return RunFacts(
        model=deployment.model.name,
        hardware=deployment.hardware.name,
        npus=shared.npus,
        tensor=shared.tensor,
        pipeline=shared.stages,
        expert=shared.expert,
        skipped=source.skipped,
        error=error,
    )


def _write_files(
    deployment: Deployment,
    source: RequestSource,
    recorder: Recorder,
    summary: dict[str, Any],
    milliseconds: dict[str, float],
) -> None:
    wanted, metrics = deployment.spec.output, recorder.metrics
    if wanted.output is None:
        return
    beside: dict[str, Path] = companions(wanted.output)
    write_requests(wanted.output, deployment.model.name, metrics, itl=wanted.itl == "list")
    write_throughput(beside["throughput"], recorder.intervals)
    write_simulation_time(beside["simulation-time"], milliseconds)
    write_record(beside["summary"], summary)
    write_record(beside["settings"], repeating(deployment.decided))
    if recorder.history is not None:
        page, timeline = beside["report"], beside["trace"]
        write_report(page, timeline, deployment, source, summary, metrics, recorder.intervals, recorder.history)

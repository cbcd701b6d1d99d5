"""Which engines run as compiled loops, and in which runs that pays. Nothing that compiles is loaded by asking."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.compiling import compiles, is_compiled
from foundation.errors import UserError
from orchestrator.cluster.router import WatchingRouter
from orchestrator.deployment import Deployment
from orchestrator.kv_memory.groups import FULL
from orchestrator.observers.interface import Observer, Run, hears_iterations
from orchestrator.pricing.compiled.covering import lacks

LEAST_REQUESTS, LEAST_UNCOMPILED = 200, 20_000
"""Of a run in which compiled loops take less time than loading them, or than compiling them first."""
LOOP = "handing.run_described"
MOST_KINDS = 4
"""Kinds of attention that a loop knows of (`layout.KINDS`)."""


def compiled_kinds(run: Run, observers: Sequence[Observer]) -> frozenset[Deployment]:
    """Return the deployments of `run` whose engines run as compiled loops, as its settings ask.

    One that is asked for and cannot be is a `UserError`.
    """
    wanted = run.spec.execution.compiled_engines
    if wanted == "never":
        return frozenset()
    apart = _disturbed(run, observers)
    reasons = {kind: apart or uncovered(kind) for kind in run.kinds()}
    if wanted == "always":
        for reason in filter(None, reasons.values()):
            raise UserError(f"engines cannot run as compiled loops: {reason}", field="--compiled_engines", fix="auto")
        return frozenset(reasons)
    if run.source.count < LEAST_REQUESTS or not compiles():
        return frozenset()
    if run.source.count < LEAST_UNCOMPILED and not is_compiled(LOOP):
        return frozenset()
    return frozenset(kind for kind, reason in reasons.items() if reason is None)


def _disturbed(run: Run, observers: Sequence[Observer]) -> str | None:
    """Return what of the run's traffic or observers keeps engines from running by themselves (one clause), or None."""
    spec, traffic = run.spec, run.spec.traffic
    if run.source.table.sessions is not None or traffic.closed:
        return "requests wait for the answers of others"
    if traffic.client_timeout is not None or traffic.ttft_timeout is not None:
        return "clients may go away"
    if spec.admission is not None or spec.autoscaler is not None:
        return "the front follows what engines are doing"
    if isinstance(spec.new_router(), WatchingRouter):
        return "the router looks at the engines between requests"
    if spec.hands_over:
        return "engines hand requests over"
    if not hears_iterations(observers):
        return "somebody wants to hear of each batch"
    return None


def uncovered(deployment: Deployment) -> str | None:
    """Return why a deployment's engines cannot run as compiled loops (one clause), or None: they can."""
    engine = deployment.engine
    if engine.names["scheduling"] != "vllm":
        return f"the policy is {engine.names['scheduling']}"
    if deployment.traced_because is not None:
        return f"every iteration is traced: {deployment.traced_because}"
    if engine.parallelism.data > 1:
        return "engines advance in lock step"
    if engine.tier.given:
        return "there is a KV tier beside the device"
    if deployment.adapters is not None or engine.scheduling.speculation is not None:
        return "there are LoRA adapters, or tokens are guessed ahead"
    if deployment.spec.noise.jitter_steps:
        return "steps take longer or shorter at random"
    return _unscheduled(deployment) or lacks(deployment.generator) or _attention(deployment)


def _unscheduled(deployment: Deployment) -> str | None:
    """Return what of the policy's rules or memory there is no loop for, or None."""
    from orchestrator.schedulers.vllm import VllmScheduler

    scheduler = deployment.scheduler
    assert isinstance(scheduler, VllmScheduler)
    config = scheduler.config
    if config.version != "0.19" or config.fills_the_queue:
        return f"the rules are those of vLLM {config.version}"
    if config.policy != "fcfs":
        return f"requests are served by {config.policy}"
    if scheduler.kv.groups != (FULL,):
        return "layers keep a sliding window"
    return None


def _attention(deployment: Deployment) -> str | None:
    kinds = len(deployment.generator.attention_shapes())
    return f"there are {kinds} kinds of attention" if kinds > MOST_KINDS else None

"""Make the external backends from the configuration files' text and the options a user gave.

Options, all text and all optional (names are the flags' without dashes): `astra_sim`, `astra_sim_image`, `spool_dir`;
`work_dir` (where graphs are written; default the system's temporary folder), `backend_timeout` (s a run may take, 600),
`backend_jobs` (steps of one graph simulated at a time); `cache_dir`, `no_cache`; and the binary's own
`num_queues_per_dim`, `injection_scale`, `rendezvous_protocol`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from external.astra_sim.adapt import adapt_configuration
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.runner import Runner
from external.astra_sim.settings import LONGEST_TIMEOUT_S, MOST_JOBS, AstraSimSettings
from external.result_cache import ResultCache
from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError
from foundation.printable import shorten

DEFAULT_IMAGE = "orrery-astra-sim"
IMAGE_VARIABLE = "ASTRA_SIM_IMAGE"
SPOOL_VARIABLE = "ORRERY_SPOOL_DIR"
_JOBS = 4
_BINARY_FLAGS = ("num_queues_per_dim", "injection_scale", "rendezvous_protocol")


def create_process(*, network: str, system: str, memory: str, options: dict[str, str]) -> AstraSimBackend:
    """Make the `astra-sim` backend: the binary at option `astra_sim`, else `ORRERY_ASTRA_SIM`, as a process a graph."""
    from external.astra_sim.process import ProcessRunner, file_identity, find_binary

    def start() -> Runner:
        binary = find_binary(options.get("astra_sim"))
        identity = file_identity(binary)
        timeout_s, work_dir = timeout_of(options), options.get("work_dir")
        return ProcessRunner([str(binary)], identity=identity, timeout_s=timeout_s, work_dir=work_dir)

    return _backend(start, network, system, memory, options)


def create_docker(*, network: str, system: str, memory: str, options: dict[str, str]) -> AstraSimBackend:
    """Make the `docker` backend: one container of `astra_sim_image`, else `ASTRA_SIM_IMAGE`, else ours."""
    from external.astra_sim.container import DockerRunner

    image = options.get("astra_sim_image") or os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE

    def start() -> Runner:
        return DockerRunner(image, timeout_s=timeout_of(options), work_dir=options.get("work_dir"))

    return _backend(start, network, system, memory, options)


def create_spool(*, network: str, system: str, memory: str, options: dict[str, str]) -> AstraSimBackend:
    """Make the `spool` backend: whoever serves the folder at option `spool_dir`, else `ORRERY_SPOOL_DIR`."""
    from external.astra_sim.spool import SpoolRunner

    folder = options.get("spool_dir") or os.environ.get(SPOOL_VARIABLE)
    if not folder:
        raise UserError("the spool backend needs a folder", field="--spool_dir", fix="--spool_dir DIR")

    def start() -> Runner:
        return SpoolRunner(folder, timeout_s=timeout_of(options))

    return _backend(start, network, system, memory, options)


def timeout_of(options: Mapping[str, str]) -> float:
    """Return the time limit of one run in seconds."""
    text = options.get("backend_timeout") or str(AstraSimSettings.backend_timeout)
    seconds = decimal_number(text)
    if seconds is None or not 0 < seconds <= LONGEST_TIMEOUT_S:
        fix = f"seconds above 0, and at most {LONGEST_TIMEOUT_S:g}"
        raise UserError(f"'{shorten(text)}' is no time limit", field="--backend_timeout", fix=fix)
    return seconds


def cache_of(options: Mapping[str, str]) -> ResultCache | None:
    """Return the result cache, or None with `no_cache`."""
    return None if _true(options.get("no_cache")) else ResultCache(options.get("cache_dir"))


def _backend(
    start: Callable[[], Runner], network: str, system: str, memory: str, options: Mapping[str, str]
) -> AstraSimBackend:
    """Check everything a user gave, then start what runs the binary."""
    configuration = adapt_configuration(network, system, memory)
    flags = {name.replace("_", "-"): options[name] for name in _BINARY_FLAGS if options.get(name)}
    jobs, cache = _jobs(options), cache_of(options)
    return AstraSimBackend(start(), configuration, flags=flags, cache=cache, jobs=jobs)


def _jobs(options: Mapping[str, str]) -> int:
    text = options.get("backend_jobs")
    if not text:
        return min(_JOBS, os.cpu_count() or 1)
    jobs = whole_number(text, 1, MOST_JOBS)
    if jobs is None:
        raise UserError(f"'{shorten(text)}' is no number of jobs", field="--backend_jobs", fix=f"from 1 to {MOST_JOBS}")
    return jobs


def _true(text: str | None) -> bool:
    return bool(text) and str(text).lower() not in ("0", "false", "no")

"""The options beside the configuration files, as text from flags or from a backend's settings."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import UserError, near_names

OPTION_NAMES = ("congestion", "num_queues_per_dim", "injection_scale", "rendezvous_protocol", "metadata")


@dataclass(frozen=True, slots=True)
class Options:
    """What upstream's command line says beside the files; `aware`: messages queue for links.

    `skip_metadata`: leave METADATA nodes out, for which ASTRA-sim aborts.
    """

    aware: bool = False
    num_queues_per_dim: int = 1
    injection_scale: float = 1.0
    rendezvous_protocol: bool = False
    skip_metadata: bool = False


def parse_options(options: dict[str, str]) -> Options:
    """Read the backend's options; a `UserError` names what is unknown or out of range."""
    for name in options:
        if name not in OPTION_NAMES:
            raise UserError("unknown option of the embedded backend", field=name, fix=near_names(name, OPTION_NAMES))
    congestion = options.get("congestion", "unaware")
    if congestion not in ("unaware", "aware"):
        raise UserError(f"{congestion!r} is unknown", field="congestion", fix="write unaware or aware")
    metadata = options.get("metadata", "refuse")
    if metadata not in ("refuse", "skip"):
        raise UserError(f"{metadata!r} is unknown", field="metadata", fix="write refuse or skip")
    return Options(
        aware=congestion == "aware",
        num_queues_per_dim=_queues(options.get("num_queues_per_dim", "1")),
        injection_scale=_scale(options.get("injection_scale", "1")),
        rendezvous_protocol=_flag(options.get("rendezvous_protocol", "false")),
        skip_metadata=metadata == "skip",
    )


def _queues(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise UserError(f"{text!r} is not a number of queues", field="num_queues_per_dim", fix="write 1..1024")
    return int(text)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise UserError(f"{text!r} is not a scale", field="injection_scale", fix="write a number of at least 0")
    return value


def _flag(text: str) -> bool:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in words:
        raise UserError(f"{text!r} is not true or false", field="rendezvous_protocol", fix="write true or false")
    return words[text.lower()]

"""The options beside the configuration files, as text from flags or from a backend's settings."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError, near_names
from foundation.records import dataclass

OPTION_NAMES = ("congestion", "num_queues_per_dim", "injection_scale", "rendezvous_protocol", "metadata")
MOST_QUEUES = 1024
LARGEST_SCALE = 1_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What upstream's command line says beside the files; `aware`: messages queue for links.

    `skip_metadata`: leave METADATA nodes out, for which ASTRA-sim aborts.
    """

    aware: bool
    num_queues_per_dim: int
    injection_scale: float
    rendezvous_protocol: bool
    skip_metadata: bool


def parse_options(options: Mapping[str, str]) -> Options:
    """Read the backend's options; a `UserError` names what is unknown or out of range."""
    for name in options:
        if name not in OPTION_NAMES:
            raise UserError("unknown option of the embedded backend", field=name, fix=near_names(name, OPTION_NAMES))
    return Options(
        aware=_one_of(options, "congestion", "unaware", "aware"),
        num_queues_per_dim=_queues(options.get("num_queues_per_dim", "1")),
        injection_scale=_scale(options.get("injection_scale", "1")),
        rendezvous_protocol=_flag(options.get("rendezvous_protocol", "false")),
        skip_metadata=_one_of(options, "metadata", "refuse", "skip"),
    )


def _one_of(options: Mapping[str, str], name: str, off: str, on: str) -> bool:
    """Return whether `name` says `on`; absent it says `off`."""
    value = options.get(name, off)
    if value not in (off, on):
        raise UserError(f"{value!r} is unknown", field=name, fix=f"write {off} or {on}")
    return value == on


def _queues(text: str) -> int:
    value = whole_number(text, 1, MOST_QUEUES)
    if value is None:
        raise UserError(
            f"{text!r} is not a number of queues", field="num_queues_per_dim", fix=f"write 1..{MOST_QUEUES}"
        )
    return value


def _scale(text: str) -> float:
    value = decimal_number(text)
    if value is None or not 0 <= value <= LARGEST_SCALE:
        fix = f"write a number from 0 to {LARGEST_SCALE}"
        raise UserError(f"{text!r} is not a scale", field="injection_scale", fix=fix)
    return value


def _flag(text: str) -> bool:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in words:
        raise UserError(f"{text!r} is not true or false", field="rendezvous_protocol", fix="write true or false")
    return words[text.lower()]

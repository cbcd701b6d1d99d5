"""Terms: settings that a recording may tell, each with where it starts, what is plausible, and a step that shows.

A term is named as its setting is. `KNOWN` has those with a plausible range of their own; any other number among a run's
settings is one with ``NAME=LOW:HIGH`` or ``NAME=LOW:HIGH:STEP``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from foundation.digits import decimal_number
from foundation.errors import UserError, near_names, raise_all
from foundation.printable import brief
from foundation.records import dataclass
from foundation.settings import Setting
from foundation.settings.catalogue import catalogue
from orchestrator.settings.specification import RunSpec

_STEPS = 20
"""Steps of a range that is given without one."""


@dataclass(frozen=True, slots=True)
class Plausible:
    """What is plausible of a term: from `low` to `high`, times its start where `relative`, in steps of `step`."""

    low: float
    high: float
    step: float
    relative: bool = False


KNOWN: Mapping[str, Plausible] = {
    "host_step_us": Plausible(0.0, 20_000.0, 200.0),
    "host_request_us": Plausible(0.0, 200.0, 5.0),
    "launch_us": Plausible(0.0, 200.0, 5.0),
    "num_gpu_blocks_override": Plausible(0.25, 2.0, 0.02, relative=True),
    "local_bw": Plausible(0.5, 1.2, 0.02, relative=True),
    "link_bw": Plausible(0.25, 2.0, 0.05, relative=True),
    "link_latency": Plausible(0.1, 10.0, 0.2, relative=True),
    "remote_bw": Plausible(0.25, 2.0, 0.05, relative=True),
}
"""Host times of a step (`orchestrator.settings.host`), memory, links. A datasheet's bandwidth is seldom exceeded and
seldom reached."""


@dataclass(frozen=True, slots=True)
class Term:
    """A setting that is fitted: from `start`, within `low` and `high`, by differences of `step`; `whole` numbers only.

    `log`: fitted by its logarithm, as what is positive and plausible by factors is. Fitting works with the share of the
    range from `low` to `high`, 0 to 1.
    """

    name: str
    start: float
    low: float
    high: float
    step: float
    log: bool
    whole: bool
    unit: str = ""

    def share(self, value: float) -> float:
        """Return how far along the range a value is."""
        low, high, at = map(self._scaled, (self.low, self.high, value))
        return (at - low) / (high - low)

    def value(self, share: float) -> float:
        """Return the value at a share of the range, within it; a whole number where it must be one."""
        low, high = map(self._scaled, (self.low, self.high))
        at = low + min(1.0, max(0.0, share)) * (high - low)
        value = math.exp(at) if self.log else at
        value = min(self.high, max(self.low, value))
        return round(value) if self.whole else value

    def step_share(self, share: float, times: int = 1) -> float:
        """Return so many steps from a share, as a share of the range; down where going up would leave the range."""
        value, step = self.value(share), times * self.step
        there = value + step if value + step <= self.high else max(self.low, value - step)
        return self.share(there) - self.share(value)

    def error(self, share: float, error: float) -> float:
        """Return a standard error of a share as one of the value."""
        low, high = map(self._scaled, (self.low, self.high))
        return error * (high - low) * (self.value(share) if self.log else 1.0)

    def given(self, share: float) -> int | float:
        """Return the value as a run takes it: short, so that it is one that people read."""
        value = self.value(share)
        return int(value) if self.whole else float(f"{value:.9g}")

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def terms(asked: Sequence[str], values: Mapping[str, float]) -> list[Term]:
    """Return the terms that are asked for (none: all known ones that the run has a value of).

    `values`: the numbers among the run's decided settings. A `UserError` tells all that is wrong.
    """
    if not asked:
        return [_known(name, KNOWN[name], values[name]) for name in KNOWN if _has(name, values)]
    found, problems = [], []
    for text in asked:
        try:
            found.append(_term(text, values))
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{', '.join(twice)} twice", field="--terms", fix="give each once")
    return found


def _term(text: str, values: Mapping[str, float]) -> Term:
    name, equals, written = text.strip().partition("=")
    name = name.replace("-", "_")
    setting = catalogue(RunSpec).entries.get(name)
    one = setting.declaration if setting is not None else None
    if not isinstance(one, Setting) or one.kind not in ("int", "float"):
        numbers = [key for key, entry in catalogue(RunSpec).entries.items() if _is_number(entry.declaration)]
        raise UserError(
            f"{brief(name)} is no number among the settings", field="--terms", fix=near_names(name, numbers)
        )
    if not equals:
        if name not in KNOWN:
            raise UserError(f"what is plausible of {name} is not known", field="--terms", fix=f"give {name}=LOW:HIGH")
        if not _has(name, values):
            raise UserError(f"the run has no {name}", field="--terms", fix=f"give {name}=LOW:HIGH, or leave it out")
        return _known(name, KNOWN[name], values[name])
    numbers_given = [decimal_number(part) for part in written.split(":")]
    if len(numbers_given) not in (2, 3) or any(number is None for number in numbers_given):
        raise UserError(
            f"{brief(text)} is not NAME=LOW:HIGH or NAME=LOW:HIGH:STEP", field="--terms", fix="give numbers"
        )
    low, high = (float(number or 0) for number in numbers_given[:2])
    step = float(numbers_given[2] or 0) if len(numbers_given) == 3 else (high - low) / _STEPS
    if not (low < high and 0 < step <= (high - low) / 2):
        raise UserError(
            f"{brief(text)} is no range with steps in it", field="--terms", fix="give LOW < HIGH and a step"
        )
    if name not in values:
        raise UserError(f"the run has no {name}", field="--terms", fix="give the run one, or leave it out")
    start = values[name]
    if not low <= start <= high:
        raise UserError(f"{name} is {start:g}, not within {low:g} and {high:g}", field="--terms", fix="widen the range")
    whole = one.kind == "int"
    return Term(name, start, low, high, max(1.0, round(step)) if whole else step, False, whole, one.unit)


def _known(name: str, plausible: Plausible, start: float) -> Term:
    declaration = catalogue(RunSpec).entries[name].declaration
    assert isinstance(declaration, Setting)
    whole, scale = declaration.kind == "int", start if plausible.relative else 1.0
    low, high, step = plausible.low * scale, max(plausible.high * scale, start), plausible.step * scale
    if whole:
        low, high, step = float(math.ceil(low)), float(math.floor(high)), float(max(1, round(step)))
    return Term(name, start, low, high, step, plausible.relative, whole, declaration.unit)


def _has(name: str, values: Mapping[str, float]) -> bool:
    """Whether a run has a value of a known term, one that its range can be told from."""
    return name in values and (values[name] > 0 or not KNOWN[name].relative)


def _is_number(declaration: object) -> bool:
    return isinstance(declaration, Setting) and declaration.kind in ("int", "float")

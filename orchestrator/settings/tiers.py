"""Where an engine keeps KV cache beyond device memory, and how fast it gets there; figures by kind, with their sources.

`host`, `cxl`: an NPU has a link of its own, so that all of an engine's move as much at once; `ssd`, `remote`: the one
drive, or the one network card of a store, is what all share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.settings.run import NIC_GB_S, TRANSFER_LATENCY_NS

MOST_GB_S = 1e9
MOST_GIB = 1e9


class TierFigures(NamedTuple):
    """`gb_s` (1e9) in each direction, and `latency_ns`; `each`: of every NPU, else of all together."""

    gb_s: float
    latency_ns: int
    each: bool


KINDS = {
    "host": TierFigures(55.0, 1000, each=True),
    "cxl": TierFigures(27.5, 1250, each=True),
    "ssd": TierFigures(5.6, 80_000, each=False),
    "remote": TierFigures(NIC_GB_S, TRANSFER_LATENCY_NS, each=False),
}
"""What a tier is by default.

- host: PCI Express 5.0 x16 is 32 GT/s x 16 lanes x 128/130 = 63 GB/s; copies between pinned memory and an H100 reach
  some 55 (NVIDIA's nvbandwidth). The latency of a copy is an assumption.
- cxl: CXL 2.0 on 8 lanes of PCI Express 5.0, half as wide at the same efficiency; some 250 ns more than DRAM of the
  socket (Sun et al., MICRO 2023, "Demystifying CXL Memory with Genuine CXL-Ready Systems and Devices").
- ssd: an NVMe drive on PCI Express 4.0: sequential writes, the slower direction, and latency of a read (Micron 7450
  PRO, product brief: 6,800 MB/s to read, 5,600 MB/s to write, 80 us).
- remote: a store behind a 400 Gb/s card, as far as another engine is (see `--transfer_bw`).
"""
NONE = "none"


@dataclass(frozen=True)
class TierSettings:
    """The tier of KV cache beyond device memory."""

    kv_tier: str = setting(
        NONE,
        "where KV cache goes beyond device memory: prefixes that are found again, or what a policy evicts",
        choices=(NONE, *KINDS),
    )
    kv_tier_bw: float | None = setting(
        None,
        "bandwidth of the way there and of the way back, all NPUs together",
        unit="GB/s (1e9)",
        above=0,
        most=MOST_GB_S,
        shown_default="host 55, cxl 27.5 for each NPU; ssd 5.6, remote 50",
    )
    kv_tier_latency: int | None = setting(
        None,
        "latency of a transfer",
        unit="ns",
        least=0,
        most=10**12,
        shown_default="host 1000, cxl 1250, ssd 80000, remote 5000",
    )
    kv_tier_size: float | None = setting(
        None,
        "room of the tier, for all NPUs of an engine or of a group together",
        unit="GiB (2^30), as vLLM counts",
        least=0,
        most=MOST_GIB,
        aliases=("kv_offloading_size",),
        shown_default="no limit",
    )
    kv_tier_group: str | None = setting(
        None,
        "engines that give the same name share one tier, its room and its bandwidth",
        shown_default="every engine has its own",
    )

    @property
    def given(self) -> bool:
        """Whether there is a tier."""
        return self.kv_tier != NONE

    @property
    def bytes_per_s(self) -> int:
        """Bandwidth in each direction, of settings that are decided."""
        return max(1, round((self.kv_tier_bw or 0) * 1e9))

    @property
    def latency_ns(self) -> int:
        """Latency, of settings that are decided."""
        return self.kv_tier_latency or 0

    @property
    def capacity(self) -> int | None:
        """Bytes; None: no limit."""
        return None if self.kv_tier_size is None else round(self.kv_tier_size * 2**30)

    def decided(self, npus: int) -> TierSettings:
        """Return the same with the figures of its kind, for an engine of so many NPUs."""
        if not self.given:
            return self
        figures = KINDS[self.kv_tier]
        bandwidth = self.kv_tier_bw or figures.gb_s * (npus if figures.each else 1)
        latency = figures.latency_ns if self.kv_tier_latency is None else self.kv_tier_latency
        return replace(self, kv_tier_bw=bandwidth, kv_tier_latency=latency)

    def problems(self) -> Iterator[Problem]:
        """Nothing is said of a tier that is not there."""
        for name in ("kv_tier_bw", "kv_tier_latency", "kv_tier_size", "kv_tier_group"):
            if not self.given and getattr(self, name) is not None:
                yield Problem(name, "there is no KV tier", f"give --kv_tier {', '.join(KINDS)}, or leave it out")


def wrong_groups(decided: Sequence[TierSettings]) -> Iterator[Problem]:
    """Return what the engines of one group say differently of their tier."""
    first: dict[str, TierSettings] = {}
    for one in decided:
        if not one.given or one.kv_tier_group is None:
            continue
        other = first.setdefault(one.kv_tier_group, one)
        for name in ("kv_tier", "kv_tier_bw", "kv_tier_latency", "kv_tier_size"):
            here, there = getattr(one, name), getattr(other, name)
            if here != there:
                values = " and ".join("no limit" if value is None else str(value) for value in (there, here))
                yield Problem(name, f"engines of the group {one.kv_tier_group} have {values}", "give all the same")
                return

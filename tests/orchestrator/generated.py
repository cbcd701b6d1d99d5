"""Makes workloads of flags, for tests; and how far from its expectation a mean may be."""

from __future__ import annotations

from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import parse
from foundation.settings.reading import Layers, read
from orchestrator.request_table import RequestTable
from orchestrator.requests.generators.clients import ClientSettings
from orchestrator.requests.generators.generating import Generator

SIGMAS = 4.5
"""Of a mean of many independent draws: beyond it is one of 150,000, and the draws of a seed are always the same."""


def client(flags: str) -> ClientSettings:
    return read(ClientSettings, Layers(flags=parse(flags.split(), catalogue(ClientSettings))))


def made(flags: str, count: int, seed: int = 3) -> RequestTable:
    return Generator((client(flags),), seed, count).table()


def mixed(flags: list[str], count: int, seed: int = 3) -> RequestTable:
    return Generator(tuple(map(client, flags)), seed, count).table()

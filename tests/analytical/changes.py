"""Small changes to the healthy case, for tables of what is refused and what is just still taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analytical_cases import Description, Node

Change = Callable[[Description], object]


def change(path: str, value: object) -> Change:
    """Set ``section/key``, or take it away for None."""

    def apply(case: Description) -> None:
        section, key = path.split("/")
        if value is None:
            case[section].pop(key, None)
        else:
            case[section][key] = value

    return apply


def first(**values: Any) -> Change:
    """Change the compute node of every rank; an attribute that is None is left out."""
    return lambda case: [_update(nodes[0], values) for nodes in case["ranks"]]


def last(**values: Any) -> Change:
    """Change the last node (the all-reduce) of every rank."""
    return lambda case: [_update(nodes[-1], values) for nodes in case["ranks"]]


def on(rank: int, **values: Any) -> Change:
    """Change the last node of one rank."""
    return lambda case: _update(case["ranks"][rank][-1], values)


def add(rank: int, *nodes: Node) -> Change:
    """Append nodes to one rank."""
    return lambda case: case["ranks"][rank].extend(nodes)


def add_all(*nodes: Node) -> Change:
    """Append nodes to every rank."""
    return lambda case: [one.extend(dict(node) for node in nodes) for one in case["ranks"]]


def every(*nodes: Node) -> Change:
    """Let every rank run these nodes instead."""
    return lambda case: [one.__setitem__(slice(None), [dict(node) for node in nodes]) for one in case["ranks"]]


def ranks(number: int) -> Change:
    """Make it a system of as many ranks, all alike."""

    def apply(case: Description) -> None:
        case["network"]["npus_count"] = [number]
        case["ranks"] = [[dict(node) for node in case["ranks"][0]] for _ in range(number)]

    return apply


def dimensions(*counts: int, algorithms: str = "ring") -> Change:
    """Make it a network of several dimensions with one algorithm everywhere."""

    def apply(case: Description) -> None:
        npus = 1
        for count in counts:
            npus *= count
        ranks(npus)(case)
        rows = {"topology": "Switch", "npus_count": 0, "bandwidth": 50, "latency": 500}
        case["network"] = {name: [value] * len(counts) for name, value in rows.items()} | {"npus_count": list(counts)}
        for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
            case["system"][f"{name}-implementation"] = [algorithms] * len(counts)

    return apply


def both(*changes: Change) -> Change:
    """Make several changes."""
    return lambda case: [one(case) for one in changes]


def _update(node: Node, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is None:
            node.pop(name)
        else:
            node[name] = value

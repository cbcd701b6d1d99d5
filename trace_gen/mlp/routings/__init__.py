"""The routings (`--expert_routing`): how tokens choose experts; what each is called, its settings; and their registry.

To add one: put a module into this package that registers a record of its settings under a name, with a method that
builds the routing: mostly `trace_gen.mlp.choices.ChosenRouting` over an object that says how many tokens choose each
expert (`trace_gen.mlp.choices.Choices`). What loads something heavy, numpy included, is imported by the method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from foundation.registry import Registry

if TYPE_CHECKING:
    from trace_gen.architecture import ModelArchitecture
    from trace_gen.mlp.routing import Routing


class RoutingSettings(Protocol):
    """The settings of a routing: a frozen record, for engines with equal ones share the routing."""

    def __hash__(self) -> int:
        """Return the same for equal settings."""

    def routing(self, architecture: ModelArchitecture, seed: int) -> Routing:
        """Return the routing of a mixture of experts; what it draws depends on `seed`.

        Raises `foundation.errors.UserError` when a file is missing or wrong.
        """


routings: Registry[type[RoutingSettings]] = Registry("expert routing", package="trace_gen.mlp.routings")

"""The file of `per-node-custom-implementation`: which nodes run a custom collective of their own."""

from __future__ import annotations

from collections.abc import Mapping

from astra_files.system import SystemConfig
from foundation.errors import UserError
from foundation.files import read_text


def read_per_node(system: SystemConfig) -> Mapping[int, str]:
    """Read the YAML file of `per-node-custom-implementation`: node id -> prefix of a custom graph."""
    if system.per_node_custom is None:
        return {}
    import yaml

    path = system.per_node_custom
    fix = "write one line a node: ID: PREFIX"
    try:
        values = yaml.safe_load(read_text(path, "file of per-node custom collectives"))
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {error}", path=path, fix=fix) from None
    if not isinstance(values, dict) or not all(
        isinstance(node, int) and isinstance(prefix, str) for node, prefix in values.items()
    ):
        raise UserError("not a mapping of node ids to prefixes", path=path, fix=fix)
    return values

"""The file of `per-node-custom-implementation`: which nodes run a custom collective of their own."""

from __future__ import annotations

from collections.abc import Mapping

from astra_files.system import SystemConfig
from foundation.digits import whole_number
from foundation.documents import read_yaml
from foundation.errors import UserError
from foundation.fields import INT64_MAX, Fields

WHAT = "file of per-node custom collectives"
_FIX = "write one line a node: ID: PREFIX"


def read_per_node(system: SystemConfig) -> Mapping[int, str]:
    """Read the YAML file that the system configuration names: node id -> prefix of a custom graph."""
    if system.per_node_custom is None:
        return {}
    document = read_yaml(system.per_node_custom, WHAT)
    if not isinstance(document.value, dict):
        raise UserError("not a mapping of node ids to prefixes", path=document.path, fix=_FIX)
    fields = Fields.of(document)
    found = {}
    for name in fields.names():
        node = whole_number(name, 0, INT64_MAX)
        prefix = fields.text(name)
        if node is None:
            fields.problem("not a node id", name, _FIX)
        else:
            found[node] = prefix
    fields.finish()
    return found

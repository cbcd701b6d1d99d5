"""How much of what others wrote is read: beyond these a file is refused before anything is made of it."""

TEXT_BYTES = 1 << 28
"""The largest text that is read whole (256 MiB); what may be larger is read in pieces."""
CONFIGURATION_BYTES = 1 << 22
"""Configurations, written by people or by programs for them (4 MiB)."""
YAML_BYTES = 1 << 19
"""YAML, which parses slowly (512 KiB)."""
DATA_BYTES = 1 << 25
"""Recordings and cases in JSON (32 MiB): parsed they stay below 1 GiB whatever they hold."""
MOST_DEPTH = 64
"""Objects and lists inside each other."""
MOST_NODES = 1 << 21
"""Objects and lists of a JSON text; all values of a YAML text, those that aliases repeat counted each time."""
ONNX_BYTES = (1 << 31) - 1
"""An ONNX model with the weights in it: as large as protobuf can be (2 GiB)."""

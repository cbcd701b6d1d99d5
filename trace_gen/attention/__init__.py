"""Kinds of attention, one file each: their operators, their work and what they keep in the KV cache.

`trace_gen.attention.interface` is the contract. A kind is an object that a layer holds (`trace_gen.architecture`).
"""

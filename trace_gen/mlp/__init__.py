"""Kinds of feed-forward networks, one file each: a dense MLP, a mixture of experts and its routing.

`trace_gen.mlp.interface` is the contract. A kind is an object that a layer holds (`trace_gen.architecture`).
"""

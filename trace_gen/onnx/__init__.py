"""Decoders from ONNX files: a graph that a framework exported becomes the architecture that its weights describe.

From the file to the model, each step a module:

    reading     bytes -> Graph: nodes, tensors that the file holds (by their sizes; weights themselves are not needed)
    flow        what depends on the tokens; the residual stream, and the branches that add to it, equal ones known
    evaluation  shapes and small values, where they are asked for
    matrices    projections, and how their weights are stored
    regions     what stands between two products: norms, rotary positions, activations
    branches    a branch -> attention or MLP, each different one worked out once
    decoder     layers, head and numbers -> ModelArchitecture

Whatever is work and has no place in a `ModelArchitecture` is refused with its node. The `onnx` package is an extra;
only `reading` and `evaluation` know it.
"""

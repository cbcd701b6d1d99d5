"""Kernel tables of a deployment: what it computes, priced once by any performance model (`orrery kernels`).

    deployments    the engines of a system file of ReaLLM's, or of a run file of ours
    planning       their kernels and sizes, a table a model
    journal        prices that are known, kept as they come, so that a kill loses none
    filling        prices the rest in processes, and writes the table
    listing        the kernels as rows

What a kernel is, and what a table looks like, is `trace_gen.kernels`.
"""

"""Kernels, traffic and simulations of a system file in one go, as ReaLLM's `make all` (`orrery pipeline`).

lengths    lengths of a task's requests where no trace is given, from a named distribution
running    the steps in order; runs that are done are not simulated again
table      all results as rows
"""

"""Bytes of others against every reader, guided by coverage: a value or one clear error, never anything else.

``python -m benchmarks.fuzz READER --minutes 5`` mutates inputs of one reader (a *target*, in `readers`) with atheris
(the `fuzz` extra) and keeps what is a finding: an exception that is no error of ours, an error that is not one short
line, more than 10 s or 1 GiB for one input. A small corpus of each target lies in tests/fuzz/corpus; the default suite
sends it through the same targets, without atheris. A target is a few lines in a module of `readers`.
"""

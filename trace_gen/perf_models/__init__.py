"""Performance models, one file each; `trace_gen.perf_model` holds the contract and the registry."""

"""Targets, in modules by what is read; a module registers its own in `benchmarks.fuzz.target.targets`."""

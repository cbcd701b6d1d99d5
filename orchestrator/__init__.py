"""The serving system in simulated time: requests, schedulers, KV memory, instances, clock, metrics, commands."""

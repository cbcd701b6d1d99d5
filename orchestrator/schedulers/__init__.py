"""Schedulers: `interface` holds the contract, every other module one policy."""

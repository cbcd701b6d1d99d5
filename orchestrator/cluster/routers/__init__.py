"""Routers, one file each: which engine a request goes to (`--router`). `orchestrator.cluster.router` has the contract.

To add one: put a module into this package that registers a record of its settings under a name. All load lightly.
"""

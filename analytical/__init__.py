"""An in-process equivalent of ASTRA-sim's analytical backend, exact to the cycle.

Rooms, each on the ones before it: `machine` (what is simulated on), `collectives` (how a collective becomes streams,
phases and messages), `events` (a simulation event by event), `chains` (graphs that need no event queue), `ordered`
(graphs whose events keep an order), `output`. Four ways lead to one answer, and `embedded` chooses: chains; an order of
events; events with whole phases of collectives solved at once; events message by message, the reference that the others
are tested against. `command` is ``python -m analytical``.
"""

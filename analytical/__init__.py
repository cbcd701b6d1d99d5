"""An in-process equivalent of ASTRA-sim's analytical backend, exact to the cycle.

Reading order: `configuration` (the three files), `simulator` (what one simulation is made of), `workload` (which node
is issued when), `collective_plan` and `streams` (how a collective becomes streams of phases), `phases` (whole phases
solved at once), `chains` (graphs that need no event queue), `backend` (which of these a graph is given to).
"""

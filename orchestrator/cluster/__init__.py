"""Several engines on one clock.

`clock` moves all that acts, `front` is where requests of a `source` arrive, `routers` say which engine they go to, and
`cluster` puts them together. At the front clients may go (`departures`), requests may wait for a `retrieval`,
`admission` turns some away, and `scaling` sets the `pool` of engines.
"""

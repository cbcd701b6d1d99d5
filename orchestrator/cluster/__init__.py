"""Several engines on one clock.

`clock` moves all that acts, `front` is where requests of a `source` arrive, `routers` say which engine they go to, and
`cluster` puts them together.
"""

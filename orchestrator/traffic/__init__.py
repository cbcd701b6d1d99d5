"""Traffic that depends on what became of earlier requests: clients who wait for answers, sessions turn by turn.

`settings` are those of clients, `stages` has the parts that a source is made of, and `building` makes it.
"""

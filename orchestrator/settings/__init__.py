"""The settings of a run: its records, what is derived from them, and where they come from.

`engine` has what an engine is made of, `run` what is common to the whole run; policies, KV memories, performance models
and backends declare theirs beside themselves. `specification` puts them together and reads them from flags and files;
`record` is what a run says of its settings.
"""

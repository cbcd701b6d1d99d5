"""What watches a run: the contract (`interface`), what is measured, what is written and what is said.

`requests` keeps a row a finished request, `intervals` cuts the run into pieces of time, `account` says where simulated
time went, `history` what the timeline shows; `files` streams results to disk, `console` and `progress` speak.
"""

"""What a collective takes on a fabric: measured curves over bytes and ranks, and how a backend is made to follow them.

- `fabric`: a fabric and its curves; `reading`: from ``configs/fabrics``, a user's JSON or output of nccl-tests;
- `nccl_tests`: that output; `choosing`: whether an engine's collectives follow its fabric's curves;
- `carrying`: the system and the sizes with which ASTRA-sim's own formula takes their times.
"""

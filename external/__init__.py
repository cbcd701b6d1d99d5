"""Programs that are not ours: ASTRA-sim as a process, in a container or behind a spool folder, and a result cache."""

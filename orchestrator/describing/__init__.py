"""What a workload is like, in figures: its arrivals, lengths and sessions, and what its prompts share."""

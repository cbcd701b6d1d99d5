"""What exists, as tables for people and as JSON: `orrery hardware` and `orrery models`."""

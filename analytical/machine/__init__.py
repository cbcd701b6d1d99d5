"""What graphs are simulated on: events in time, messages and links, buses, memories, compute; and what fits it."""

"""One step by events with few actors: ranks that are alike as one, collectives as one."""

"""A simulation event by event: the reference, and the way for every graph that no other way takes."""

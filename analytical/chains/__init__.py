"""Graphs in which every rank runs one node after another: evaluated without an event queue, all steps at once."""

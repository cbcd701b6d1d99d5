"""Fits settings of a run to a recording, and says which of them the recording cannot tell."""

"""An unmodified ASTRA-sim analytical binary as the backend: adapt a graph, run it, read the answer back."""

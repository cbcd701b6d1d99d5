"""Requests: as they arrive (`request`), and as they enter an engine (`admission`)."""

"""Requests: as they arrive (`request`), as they enter an engine (`admission`), and files of them (`formats`)."""

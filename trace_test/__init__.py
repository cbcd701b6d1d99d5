"""Checks of traces that anybody may have made or changed: texts, .et files, random batches. One rule a file."""

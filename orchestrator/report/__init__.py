"""What a run shows to people: one HTML page, and a timeline for Perfetto. Nothing of wall-clock time is in either."""

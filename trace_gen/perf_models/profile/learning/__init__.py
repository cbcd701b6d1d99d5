"""Times learned from measured ones (`--profile_predictor`), in place of straight lines between rows."""

"""Times that were measured: reading tables of them, and looking up what lies between and beyond their rows."""

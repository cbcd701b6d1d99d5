"""ASTRA-sim's configuration files as frozen records: parse, check, write; each reports every mistake at once."""

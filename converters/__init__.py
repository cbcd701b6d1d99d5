"""Between representations only: text trace, `Trace`, `ExecutionGraph`, Chakra .et."""

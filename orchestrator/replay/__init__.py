"""Replay of recorded scheduling cases: the same requests and latency formula, our decisions, step by step."""

"""Graphs that are no chains: evaluated in an order found once, for every step whose events provably keep it."""

"""Managers of the KV cache's memory: blocks on the device, blocks on the host, and who holds them."""

"""How far numbers go, so that no sum of times leaves 64 bits and every time is exact in doubles."""

LONGEST_NS = 2**53
"""No node, message or reduction takes longer (104 days)."""

LONGEST_RUN_NS = 2**62
"""No run takes longer (146 years)."""

MOST_BYTES = 2**60
"""What a message, a collective or a memory node moves at most."""

MOST_RECORDED_US = LONGEST_NS // 1000

"""What one iteration computes: model architecture -> operators -> `Trace`, with latencies from performance models.

Depends on nothing of ours but `foundation`.
"""

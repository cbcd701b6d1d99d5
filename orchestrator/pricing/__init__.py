"""What a batch costs: `interface` has the contract, `traced` is the truth (batch -> trace -> graph -> backend)."""

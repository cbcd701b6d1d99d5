"""What every package of the project may use: errors, registries, atomic files. Knows nothing of simulation."""

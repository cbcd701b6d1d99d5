"""The policies, a file each: what it is called, its settings, how its scheduler is built. All load lightly."""

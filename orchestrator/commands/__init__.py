"""The commands: one file each, what its flags mean put into action."""

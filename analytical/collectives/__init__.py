"""How a collective becomes streams of phases, and a phase its messages, one by one or solved as a whole."""

"""One engine on the clock: batches and their outcome, stage times, stretches of like steps, what observers get."""

"""How close a simulation comes to a recording: recordings read, requests matched, errors, and the noise beside them."""

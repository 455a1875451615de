"""The decisions, as pure functions of values and ``now``: no I/O, clock, thread or randomness in here."""

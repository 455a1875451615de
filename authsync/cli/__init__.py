"""The commands: thin, and the only place that prints or exits. Heavy imports wait until a command really runs."""

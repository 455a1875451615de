"""authsync keeps the identity folder of a bot in PostgreSQL, so that it survives its container."""

__version__ = "0.1.0"

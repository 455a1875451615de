"""How the unit tests use Hypothesis: no deadline, no memory of earlier runs, and a profile for a longer search."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, database=None)
settings.register_profile("thorough", deadline=None, database=None, max_examples=1000)
if settings.get_current_profile_name() == "default":
    settings.load_profile("unit")

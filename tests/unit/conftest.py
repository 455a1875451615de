"""How the unit tests use Hypothesis: no deadline, and nothing written beside the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, database=None)
settings.register_profile("thorough", deadline=None, database=None, max_examples=5000)
if settings.get_current_profile_name() == "default":
    settings.load_profile("unit")

"""Targets: a model at a provider, and the tier that it belongs to."""

from enum import StrEnum

import msgspec


class Tier(StrEnum):
    """Who answers: a stored answer, a server of ours, or somebody's API."""

    CACHE = "cache"
    PRIVATE = "private"
    HOSTED = "hosted"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a provider: the unit that routes order, prices name and breakers watch."""

    provider: str
    model: str
    """The name that the provider itself uses; it may contain slashes."""
    tier: Tier

    @property
    def name(self) -> str:
        """`provider/model`, always a valid model name for a caller."""
        return f"{self.provider}/{self.model}"

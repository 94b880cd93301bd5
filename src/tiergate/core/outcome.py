"""How an attempt ended, and whose doing it was."""

from enum import StrEnum


class Outcome(StrEnum):
    """What an attempt says about its target, in three ways."""

    SUCCESS = "success"
    """The target answered."""
    IGNORE = "ignore"
    """Says nothing about the target: the caller left, or asked for something impossible."""
    DROPPED = "dropped"
    """The target did not carry the call: it failed, was too slow or was full."""


class Blame(StrEnum):
    """Who would have to change something."""

    CALLER = "caller"
    PROVIDER = "provider"
    US = "us"


class Delivery(StrEnum):
    """Whether the upstream can have seen the request; money is released only on a proven NONE."""

    NONE = "none"
    """Proven: no byte of the request left this process."""
    POSSIBLE = "possible"
    """Bytes left, nothing came back: it may be running, and billed."""
    CONFIRMED = "confirmed"
    """The upstream answered something."""

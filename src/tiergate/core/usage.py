"""Usage in disjoint buckets: every token is counted in exactly one of them."""

from enum import StrEnum

import msgspec


class UsageSource(StrEnum):
    """Where a usage came from; a report may add only what it may trust."""

    REPORTED = "reported"
    """The upstream said so."""
    BOUNDED = "bounded"
    """Nobody said; charged at the most that could have been generated."""
    ESTIMATED = "estimated"
    """Calculated from lengths, on private servers that report nothing."""
    NONE = "none"
    """Nothing was used: the request was never delivered, or was refused."""


class UsageDoubt(StrEnum):
    """What is odd about the usage or the cost of an attempt; it is charged all the same."""

    UNREADABLE = "unreadable"
    """What it reported cannot be: negative, more cached than read, no numbers. Charged at the bound."""
    UNREPORTED = "unreported"
    """The answer is complete and the provider reported nothing. Charged at the most that it can have used."""
    ABOVE_BOUND = "above_bound"
    """It used more than was held for it: the bound is wrong, or the report. Charged as reported."""
    COST_DIFFERS = "cost_differs"
    """The provider says another cost than the price book: one of the two prices is wrong."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens by disjoint bucket (images are a count of images).

    `input` excludes what was read from or written to a provider's prompt cache; `output` excludes
    reasoning and audio. So the sums below never count a token twice.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0
    images: int = 0

    @property
    def input_tokens(self) -> int:
        """All tokens that went in, cached or not."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h + self.audio_in

    @property
    def output_tokens(self) -> int:
        """All tokens that came out, visible or not."""
        return self.output + self.reasoning + self.audio_out

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


NOTHING = Usage()

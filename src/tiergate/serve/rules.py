"""The rules: one immutable snapshot of everything that the settings decide about a call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from tiergate.cache import DEFAULT_POLICY, CachePolicy, Hint
from tiergate.catalog import NOTHING_KNOWN, ModelFacts, PriceBook
from tiergate.core import Target, Tier
from tiergate.resilience import RetryPolicy
from tiergate.routing import Policy


def _nothing_known(target: Target) -> ModelFacts:
    return NOTHING_KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model that callers may ask for: its targets in the order of the settings, and the policy."""

    targets: tuple[Target, ...]
    policy: Policy = Policy.IN_ORDER
    cache: CachePolicy = DEFAULT_POLICY
    revision: str = field(init=False)
    """A word that another list of targets, or another policy, does not have."""

    def __post_init__(self) -> None:
        told = msgspec.json.encode((self.targets, self.policy, self.cache))
        object.__setattr__(self, "revision", blake2b(told, digest_size=8).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one generation of the settings says. A reload makes the next; a running call keeps its own.

    `providers` gives each provider's tier, so that `provider/upstream-name` is a model too; `any_model` names
    the providers that take every other name (the entry `"*"`), in order.
    """

    generation: int
    models: Mapping[str, ModelEntry]
    providers: Mapping[str, Tier]
    prices: PriceBook
    any_model: tuple[str, ...] = ()
    any_model_policy: Policy = Policy.IN_ORDER
    cache: CachePolicy = DEFAULT_POLICY
    """Of models that have none of their own."""
    hints: Mapping[str, frozenset[Hint]] = field(default_factory=dict)
    """What which provider is told beside a request."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    facts: Callable[[Target], ModelFacts] = _nothing_known
    """Limits and abilities of a target."""
    drained: Mapping[str, float] = field(default_factory=dict)
    """For how many seconds which provider's answers are read for their usage when nobody waits for them."""

"""From what was asked to what is allowed: targets, limits of time and attempts.

Pure, and the only place where settings, caller and call are put together.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import msgspec

from tiergate.cache import CachePolicy, Hint
from tiergate.catalog import Ability, ModelFacts, PriceBook
from tiergate.core import LOCAL, Call, Caller, DataClass, InvalidRequest, ModelNotFound, Target, Tier
from tiergate.resilience import Facts, Health, RetryPolicy
from tiergate.routing import Policy, Route, route
from tiergate.serve.caps import check_caps
from tiergate.serve.rules import ModelEntry, Rules
from tiergate.wire import dumps


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds until the first event of a stream, and between two."""

    first_event_s: float
    idle_s: float
    is_hasty: bool
    """The caller waits less for the first event than we would."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may do. Times are seconds; `deadline` is on the monotonic clock."""

    generation: int
    prices: PriceBook
    facts: Callable[[Target], ModelFacts]
    targets: tuple[Target, ...]
    policy: Policy
    data_class: DataClass
    retry: RetryPolicy
    deadline: float
    first_event_limit_s: float | None
    """How long the caller itself waits for the first event."""
    cache: CachePolicy
    revision: str
    """Of the model's entry in the settings."""
    hints: Mapping[str, frozenset[Hint]]
    """What which provider is told beside a request."""
    drained: Mapping[str, float]
    """For how many seconds which provider's answers are read when nobody waits for them."""

    def patience(self, target: Target) -> "Patience":
        """Give how long this call waits for the events of a target."""
        least_s = self.retry.reasoning_s if self.facts(target).abilities.get(Ability.REASONING) else 0.0
        first_event_s = max(self.retry.first_event_s, least_s)
        limit_s = self.first_event_limit_s
        is_hasty = limit_s is not None and limit_s < first_event_s
        return Patience(
            first_event_s=limit_s if limit_s is not None and is_hasty else first_event_s,
            idle_s=max(self.retry.idle_s, least_s),
            is_hasty=is_hasty,
        )

    @property
    def may_be_drained(self) -> bool:
        """Whether the answer may be read on for its usage when the caller has left."""
        return bool(self.drained) and any(target.provider in self.drained for target in self.targets)

    def drain_s(self, provider: str) -> float:
        """Give for how long; 0: not at all."""
        return self.drained.get(provider, 0.0)


def resolve(call: Call, rules: Rules) -> Resolved:
    """Put call and rules together.

    Raises:
        ModelNotFound: the asked model is none of ours.
        InvalidRequest: it has no target that may answer this call, whatever is up or down; or the call asks
            for more than its key may.
    """
    entry = find_model(call.asked_model, rules, call.caller)
    retry = rules.retry
    limit_s = retry.stream_total_s if call.streamed else retry.total_s
    if call.time_limit_s is not None:
        limit_s = min(limit_s, call.time_limit_s)
    targets = _allowed(call, entry)
    check_caps(call, targets, rules.facts)
    return Resolved(
        generation=rules.generation,
        prices=rules.prices,
        facts=rules.facts,
        targets=targets,
        policy=entry.policy,
        data_class=call.data_class,
        retry=retry,
        deadline=call.received + limit_s,
        first_event_limit_s=call.first_event_limit_s,
        cache=entry.cache,
        revision=entry.revision,
        hints=rules.hints,
        drained=rules.drained,
    )


def way_of(resolved: Resolved, health: Health) -> Route:
    """Give the ordered targets of a call, with what is known against each at this moment."""
    return route(
        resolved.targets,
        policy=resolved.policy,
        data_class=resolved.data_class,
        why_not=health.why_not,
    )


# Nearly every call goes the same way as the last one.
@lru_cache(maxsize=1024)
def route_text(reasons: tuple[tuple[str, str], ...]) -> str:
    """Write a route's targets and reasons as the ledger keeps them."""
    return dumps(reasons).decode()


def facts_of(call: Call, resolved: Resolved, targets: Sequence[Target]) -> Facts:
    """Give what the loop over attempts decides by."""
    return Facts(
        targets=targets,
        policy=resolved.retry,
        deadline=resolved.deadline,
        call_class=call.call_class,
        is_sent_again=call.is_sent_again,
    )


def _allowed(call: Call, entry: ModelEntry) -> tuple[Target, ...]:
    """Give the targets that may answer the caller's key; those that the data may not go to are among them.

    Routing leaves those out, and says so in the route.
    """
    tiers, model = call.caller.tiers, f"{call.asked_model[:200]!r}"
    found = tuple(target for target in entry.targets if tiers is None or target.tier.value in tiers)
    if not found:
        raise InvalidRequest(
            f"This key is answered by the tier {' or '.join(tiers or ())} only, and {model} has no target "
            "there.",
            param="model",
        )
    is_private = call.data_class is DataClass.PRIVATE_ONLY
    if is_private and all(target.tier is not Tier.PRIVATE for target in found):
        raise InvalidRequest(
            f"The call is private-only, and {model} has no private target that may answer it. Ask for a "
            "model that has one.",
            param="model",
        )
    return found


def find_model(asked: str, rules: Rules, caller: Caller = LOCAL) -> ModelEntry:
    """Find a model by its name in the settings, as `provider/upstream-name`, or through `"*"`.

    One that the caller's key may not ask for is not there.

    Raises:
        ModelNotFound: with the list of names.
    """
    if not caller.may_ask_for(asked):
        raise ModelNotFound(asked, tuple(filter(caller.may_ask_for, rules.models)))
    entry = rules.models.get(asked)
    if entry is not None:
        return entry
    provider, slash, name = asked.partition("/")
    if slash and name not in ("", "*") and provider in rules.providers:
        target = Target(provider=provider, model=name, tier=rules.providers[provider])
        return _entry((target,), Policy.IN_ORDER, rules.cache)
    if rules.any_model and asked != "*" and name != "*":
        targets = tuple(
            Target(provider=provider, model=asked, tier=rules.providers[provider])
            for provider in rules.any_model
        )
        return _entry(targets, rules.any_model_policy, rules.cache)
    raise ModelNotFound(asked, tuple(filter(caller.may_ask_for, rules.models)))


@lru_cache(maxsize=1024)
def _entry(targets: tuple[Target, ...], policy: Policy, cache: CachePolicy) -> ModelEntry:
    return ModelEntry(targets=targets, policy=policy, cache=cache)

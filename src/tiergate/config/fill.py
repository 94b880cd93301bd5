"""From settings to the values that the rooms work with. Nothing is decided here that a room could decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

from tiergate.admission import KeyBudget, KeyLimits, Keyring, VirtualKey
from tiergate.cache import CachePolicy, Hint, When
from tiergate.catalog import (
    BUCKETS,
    BilledBy,
    Catalog,
    Hours,
    PriceBook,
    PriceRecord,
    Rates,
    Tariff,
    Vendor,
    vendor_at,
)
from tiergate.config.sections import Budget as BudgetSection
from tiergate.config.sections import ModelCache, OtherPer1m, UsdPer1m
from tiergate.config.sections import Price as PriceSection
from tiergate.config.sections import Provider as ProviderSection
from tiergate.config.settings import Settings
from tiergate.core import CallClass, Caller, Goal, Target, Tier, usd_to_nanos
from tiergate.ledger import Ceiling, Period, Scope
from tiergate.rates import WithoutBank
from tiergate.resilience import BreakerPolicy, ProviderLimits, RetryPolicy
from tiergate.routing import Policy
from tiergate.serve import ModelEntry, Rules
from tiergate.upstream import Credential, Provider

ANY_MODEL: Final = "*"
"""The entry that takes every name that is not listed."""

_MIB: Final = 1 << 20
_CONNECTIONS: Final = 1024
"""Most connections to each server of a provider, where its limit of calls in flight asks for no more."""
_SINCE_EVER: Final = date(1970, 1, 1)


def rules(settings: Settings, *, generation: int) -> Rules:
    """Give the rules that calls are resolved under."""
    any_model = settings.models.get(ANY_MODEL)
    longest = {row.target: row.max_output_tokens for row in settings.facts}
    catalog = Catalog(vendors(settings), longest=longest)
    return Rules(
        generation=generation,
        models={
            name: ModelEntry(
                targets=tuple(_target(text, settings) for text in model.targets),
                policy=Policy(model.policy),
                cache=cache_policy(settings, model.cache),
            )
            for name, model in settings.models.items()
            if name != ANY_MODEL
        },
        providers={name: Tier(provider.tier) for name, provider in settings.providers.items()},
        prices=PriceBook([_record(row) for row in settings.prices], catalog=catalog),
        any_model=()
        if any_model is None
        else tuple(target.partition("/")[0] for target in any_model.targets),
        any_model_policy=Policy.IN_ORDER if any_model is None else Policy(any_model.policy),
        cache=cache_policy(settings),
        hints={
            name: frozenset(map(Hint, provider.sends))
            for name, provider in settings.providers.items()
            if provider.sends
        },
        retry=_retry(settings),
        facts=catalog.facts,
        drained={
            name: provider.drain_s
            for name, provider in settings.providers.items()
            if provider.drain_s is not None and provider.tier == "hosted"
        },
    )


def cache_policy(settings: Settings, own: ModelCache | None = None) -> CachePolicy:
    """Give what is kept of answers: as the cache's settings say, but for what a model has of its own."""
    given: dict[str, Any] = settings.cache.exact.model_dump(include=set(ModelCache.model_fields))
    if own is not None:
        given |= own.model_dump(exclude_none=True)
    return CachePolicy(
        when=When(given["when"]),
        ttl_s=given["ttl"],
        stale_if_error_s=given["stale_if_error"],
        keep_tool_calls=given["tool_calls"],
    )


def cache_bytes(settings: Settings) -> int:
    """Give the most bytes of answers that are kept."""
    return settings.cache.exact.max_mb * _MIB


def ceilings(settings: Settings, keys: Sequence[VirtualKey] = ()) -> list[Ceiling]:
    """Give what may be spent, by the settings and by each virtual key's own budget.

    Where both have one for the same key and window, the lower amount and the lower slack hold, and calls
    without a bound pass only where the settings let them.
    """
    found: dict[str, Ceiling] = {}
    of_settings = [_ceiling(budget, settings.timezone) for budget in settings.budgets]
    of_keys = [
        _key_ceiling(key.name, key.budget, settings.timezone) for key in keys if key.budget is not None
    ]
    for ceiling in (*of_settings, *of_keys):
        other = found.setdefault(ceiling.id, ceiling)
        found[ceiling.id] = replace(
            other,
            amount_nanos=min(other.amount_nanos, ceiling.amount_nanos),
            slack_nanos=min(other.slack_nanos, ceiling.slack_nanos),
        )
    return list(found.values())


def webhook(settings: Settings) -> str | None:
    """Give where alerts are posted to."""
    return None if settings.alerts.webhook is None else settings.alerts.webhook.reveal()


def goals(settings: Settings) -> dict[CallClass, Goal]:
    """Give what "in time" means for each class of calls."""
    return {
        name: Goal(total_s=given.total_s, first_event_s=given.first_event_s)
        for name, given in (
            (CallClass.INTERACTIVE, settings.classes.interactive),
            (CallClass.BATCH, settings.classes.batch),
        )
    }


def spend_limit_nanos(settings: Settings) -> int | None:
    """Give what a key may spend within an hour before somebody is told."""
    limit = settings.alerts.usd_per_hour
    return None if limit is None else usd_to_nanos(limit)


def vendors(settings: Settings) -> dict[str, Vendor]:
    """Tell whose API each provider is, by name; those that are nobody's that we know are left out."""
    found = {name: vendor_at(section.urls) for name, section in settings.providers.items()}
    return {name: vendor for name, vendor in found.items() if vendor is not None}


def providers(settings: Settings) -> dict[str, Provider]:
    """Give what the upstream needs to know of each provider, by name."""
    known = vendors(settings)
    return {
        name: _provider(name, section, settings, known.get(name))
        for name, section in settings.providers.items()
    }


def keyring(
    settings: Settings,
    *,
    house_token: str,
    virtual: Sequence[VirtualKey] = (),
    digest: Callable[[str], bytes] | None = None,
) -> Keyring:
    """Give the keys that open the door; `house_token` lets this machine's own command line in."""
    keys = [(key.secret.reveal(), Caller(key=key.name, team=key.team)) for key in settings.keys]
    return Keyring(
        [*keys, (house_token, Caller(key="local"))],
        limits={key.name: KeyLimits.of(key.limits.model_dump()) for key in settings.keys},
        is_open=settings.auth == "open",
        virtual=virtual,
        digest=digest,
    )


def limits(settings: Settings) -> dict[str, ProviderLimits]:
    """Give what each provider takes from us, by name."""
    return {
        name: ProviderLimits(
            concurrency=provider.limits.concurrency,
            rpm=provider.limits.rpm,
            tpm=provider.limits.tpm,
            without_bank=WithoutBank(provider.limits.without_redis),
        )
        for name, provider in settings.providers.items()
    }


def _ceiling(budget: BudgetSection, zone: str) -> Ceiling:
    scope, _, name = budget.scope.partition(":")
    return Ceiling(
        scope=Scope(scope),
        name=name,
        period=Period(budget.per),
        amount_nanos=usd_to_nanos(budget.usd),
        slack_nanos=usd_to_nanos(budget.slack_usd),
        zone=zone,
        allows_unbounded=budget.unbounded == "allow",
    )


def _key_ceiling(name: str, budget: KeyBudget, zone: str) -> Ceiling:
    return Ceiling(
        scope=Scope.KEY,
        name=name,
        period=Period(budget.per),
        amount_nanos=budget.amount_nanos,
        slack_nanos=budget.slack_nanos,
        zone=zone,
    )


def _target(text: str, settings: Settings) -> Target:
    provider, _, model = text.partition("/")
    return Target(provider=provider, model=model, tier=Tier(settings.providers[provider].tier))


def _record(row: PriceSection) -> PriceRecord:
    given, usd_per_unit = row.usd_per_1m, Decimal(1)
    if given is None:
        assert row.per_1m is not None and row.usd_per_currency is not None
        given, usd_per_unit = row.per_1m, row.usd_per_currency
    standard = _in_usd({}, given, usd_per_unit)

    def other(per_1m: OtherPer1m) -> Tariff:
        return Tariff(rates=Rates(**_in_usd(standard, per_1m, usd_per_unit)))

    above = [(long.input_tokens, other(long.per_1m).rates) for long in row.above]
    return PriceRecord(
        target=row.target,
        standard=Tariff(rates=Rates(**standard), above=tuple(sorted(above, key=lambda one: one[0]))),
        hours=tuple(
            Hours(
                days=frozenset(range(7) if slot.days is None else slot.days),
                start=slot.start,
                end=slot.end,
                zone=slot.zone,
                tariff=other(slot.per_1m),
            )
            for slot in row.hours
        ),
        service_tiers={name: other(tier) for name, tier in row.service_tiers.items()},
        usd_per_request=row.per_request * usd_per_unit,
        billed_by=BilledBy(row.billed_by),
        valid_from=row.valid_from or _SINCE_EVER,
        until=row.until,
        checked=row.checked,
        source=row.source if row.currency is None else f"{row.source}; 1 {row.currency} = {usd_per_unit} USD",
    )


def _in_usd(
    standard: Mapping[str, Decimal], given: UsdPer1m | OtherPer1m, usd_per_unit: Decimal
) -> dict[str, Decimal]:
    """Give every bucket's rate in USD: as given, else as it is in the standard price."""
    found = dict(standard)
    for bucket in BUCKETS:
        amount = getattr(given, bucket)
        if amount is not None:
            found[bucket] = amount * usd_per_unit
    return found


def _retry(settings: Settings) -> RetryPolicy:
    given = settings.resilience
    return RetryPolicy(
        attempts=given.attempts,
        backoff_s=given.backoff_s,
        backoff_max_s=given.backoff_max_s,
        first_event_s=given.first_event_s,
        idle_s=given.idle_s,
        reasoning_s=given.reasoning_s,
        total_s=given.total_s,
        stream_total_s=given.stream_total_s,
    )


def breakers(settings: Settings) -> BreakerPolicy:
    """Give when what fails is left alone."""
    given = settings.resilience.breaker
    return BreakerPolicy(
        enabled=given.enabled,
        window_s=given.window_s,
        calls_min=given.calls,
        failed_share=given.failed_share,
        in_a_row=given.in_a_row,
        open_s=given.open_s,
        open_max_s=given.open_max_s,
    )


def _provider(name: str, section: ProviderSection, settings: Settings, vendor: Vendor | None) -> Provider:
    return Provider(
        name=name,
        tier=Tier(section.tier),
        base_urls=section.urls,
        credentials=tuple(
            Credential(id=f"{name}-{number}", secret=key.reveal())
            for number, key in enumerate(section.api_keys, start=1)
        ),
        ca_file=None if section.ca_file is None else str(section.ca_file),
        takes_stream_options=vendor is None or vendor.takes_stream_options,
        # A permit without a connection would be a second, hidden limit.
        max_connections=max(_CONNECTIONS, section.limits.concurrency or 0),
        event_bytes_max=int(settings.limits.event_mb * _MIB),
    )

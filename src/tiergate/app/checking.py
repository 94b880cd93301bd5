"""What `tiergate check` doubts: budgets that hold nobody, and targets that budgets keep calls from.

Settings that are right all the same: a key can be made tomorrow, and a price written down.
"""

from collections.abc import Callable, Iterator, Sequence

from tiergate.admission import VirtualKey
from tiergate.catalog import PriceState
from tiergate.config import Loaded, Settings, fill
from tiergate.core import LOCAL, StorageUnavailable, Target, Tier
from tiergate.ledger import Ceiling, Scope
from tiergate.serve import Rules
from tiergate.store import LEDGER_FILE, look_at, read_keys

_NAMED_AT_ONCE = 5


def doubts(loaded: Loaded, *, wall_ns: int) -> tuple[str, ...]:
    """Give a sentence for each doubt. Keys that were made are looked up where there is a ledger."""
    settings = loaded.settings
    keys = _kept_keys(settings)
    rules = fill.rules(settings, generation=1)
    ceilings = fill.ceilings(settings, keys or ())
    return (
        *_nobodys(settings, rules, keys),
        *_unpriced(rules, ceilings, wall_ns),
        *_endless(rules, ceilings),
    )


def _kept_keys(settings: Settings) -> Sequence[VirtualKey] | None:
    """Give the keys that were made; None: the ledger cannot be looked at."""
    ledger = settings.data_dir / LEDGER_FILE
    if not ledger.exists():
        return ()
    try:
        return read_keys(look_at(ledger))
    except StorageUnavailable:
        return None


def _nobodys(settings: Settings, rules: Rules, keys: Sequence[VirtualKey] | None) -> Iterator[str]:
    """Say which budgets are of a name that nothing has."""
    for number, budget in enumerate(settings.budgets):
        scope, _, name = budget.scope.partition(":")
        missing = _missing(Scope(scope), name, settings, rules, keys or ())
        if missing is not None:
            unseen = "; keys that were made could not be looked at" if keys is None else ""
            where = f"budgets[{number}].scope: {budget.scope}"
            yield f"{where}: {missing}{unseen}, so the budget holds nobody yet"


def _missing(
    scope: Scope, name: str, settings: Settings, rules: Rules, made: Sequence[VirtualKey]
) -> str | None:
    keys = [(key.name, key.team) for key in settings.keys] + [(key.name, key.team) for key in made]
    match scope:
        case Scope.ALL:
            return None
        case Scope.KEY:
            known = name == LOCAL.key or name in dict(keys)
            return None if known else "there is no key of this name"
        case Scope.TEAM:
            return None if name in dict(keys).values() else "no key is of this team"
        case Scope.MODEL:
            return None if _is_model(name, rules) else "there is no model of this name"
        case Scope.TIER:
            return None if Tier(name) in rules.providers.values() else "no provider is of this tier"
        case Scope.JOB:
            return None  # settings name none


def _is_model(name: str, rules: Rules) -> bool:
    return bool(name in rules.models or rules.any_model or name.partition("/")[0] in rules.providers)


def _unpriced(rules: Rules, ceilings: Sequence[Ceiling], wall_ns: int) -> Iterator[str]:
    """Say which targets have no price and stand under a budget that refuses what it cannot hold."""

    def lacks_price(target: Target) -> bool:
        return rules.prices.find(target, wall_ns).state is PriceState.UNKNOWN

    targets, budgets = _refused(rules, ceilings, lacks_price)
    if targets:
        yield (
            f"prices: no price is known of {targets}, and calls of them that count against a budget "
            f"({budgets}) are refused with 402: write a price, or `unbounded: allow` in the budget"
        )


def _endless(rules: Rules, ceilings: Sequence[Ceiling]) -> Iterator[str]:
    """Say which targets have answers without a known end."""

    def lacks_end(target: Target) -> bool:
        return target.tier is Tier.HOSTED and rules.facts(target).output_tokens is None

    targets, budgets = _refused(rules, ceilings, lacks_end)
    if targets:
        yield (
            f"facts: the longest answer of {targets} is not known, and calls of them without max_tokens that "
            f"count against a budget ({budgets}) get 402: write `max_output_tokens` under `facts`"
        )


def _refused(rules: Rules, ceilings: Sequence[Ceiling], lacks: Callable[[Target], bool]) -> tuple[str, str]:
    """Give the targets that lack something and stand under a budget that needs it, and those budgets."""
    found: dict[str, set[str]] = {}
    for model, entry in rules.models.items():
        for target in filter(lacks, entry.targets):
            for ceiling in ceilings:
                if not ceiling.allows_unbounded and _may_cover(ceiling, model, target):
                    found.setdefault(target.name, set()).add(ceiling.id)
    budgets = {name for names in found.values() for name in names}
    return _listed(sorted(found)), _listed(sorted(budgets))


def _may_cover(ceiling: Ceiling, model: str, target: Target) -> bool:
    """Tell whether a call of a model at a target can count against a ceiling, whoever makes it."""
    match ceiling.scope:
        case Scope.ALL | Scope.KEY | Scope.TEAM | Scope.JOB:
            return True
        case Scope.MODEL:
            return ceiling.name == model
        case Scope.TIER:
            return ceiling.name == target.tier.value


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_AT_ONCE]) + (", …" if len(names) > _NAMED_AT_ONCE else "")

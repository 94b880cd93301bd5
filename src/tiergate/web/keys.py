"""What a key's holder may know of it: what it may do, what is left of its limits and of its own budgets."""

from collections.abc import Sequence
from typing import Any

from tiergate.admission import Allowance
from tiergate.core import Caller, nanos_to_usd
from tiergate.ledger import Balance, Scope
from tiergate.web.moments import time_text
from tiergate.web.ratelimits import limits_object


def key_object(caller: Caller, allowance: Allowance | None, balances: Sequence[Balance]) -> dict[str, Any]:
    """Give a key by its caller, with its limits, and the budgets of itself and of its team and no others."""
    return {
        "object": "key",
        "name": caller.key,
        "team": caller.team,
        "models": caller.models,
        "tiers": caller.tiers,
        "data": caller.data_class.value,
        "expires": None if caller.expires_ns is None else time_text(caller.expires_ns),
        **limits_object(allowance),
        "budgets": [_budget(balance) for balance in balances if _is_its_own(caller, balance)],
    }


def _is_its_own(caller: Caller, balance: Balance) -> bool:
    ceiling = balance.ceiling
    return (ceiling.scope is Scope.KEY and ceiling.name == caller.key) or (
        ceiling.scope is Scope.TEAM and ceiling.name == caller.team
    )


def _budget(balance: Balance) -> dict[str, Any]:
    ceiling, end_ns = balance.ceiling, balance.window.end_ns
    return {
        "scope": f"{ceiling.scope.value}:{ceiling.name}",
        "per": ceiling.period.value,
        "usd": nanos_to_usd(ceiling.amount_nanos),
        "spent_usd": nanos_to_usd(balance.spent_nanos),
        "held_usd": nanos_to_usd(balance.held_nanos),
        "left_usd": nanos_to_usd(balance.left_nanos),
        "window_end": None if end_ns is None else time_text(end_ns),
    }

"""The verdict on a hold: it fits, it waits, or it is refused, by the balances that it counts against."""

from collections.abc import Sequence
from typing import NamedTuple

from tiergate.core import BudgetBusy, BudgetExceeded, BudgetUnbounded, Target, TiergateError
from tiergate.ledger.ceilings import Balance, Claim
from tiergate.ledger.said import busy_sentence, exceeded_sentence, unbounded_sentence


class Ask(NamedTuple):
    """What a hold asks of the balances that it counts against."""

    amount_nanos: int | None
    """None: nobody knows how much."""
    target: Target
    claims: tuple[Claim, ...]


class BalanceMissing(TiergateError):
    """A balance is not in the store that a hold counts against. It is made, and the hold asks again."""

    code = "storage_unavailable"


def must_wait(amount: int | None, target: Target, balances: Sequence[Balance], queued: set[int]) -> bool:
    """Tell whether a hold fits only later.

    `amount`: nano-dollars; None: nobody knows how much. `queued`: the balances that others wait for.

    Raises:
        Unaffordable: it fits never.
    """
    exceeded: list[Balance] = []
    for balance in balances:
        if amount is None and not balance.ceiling.allows_unbounded:
            raise BudgetUnbounded(
                unbounded_sentence(target, balance), target=target.name, budget=balance.ceiling.id
            )
        if balance.refuses(amount or 0) or (amount is None and balance.spent_nanos >= balance.limit_nanos):
            exceeded.append(balance)
    if exceeded:
        # The tightest: whoever fits into it has not to ask again because of another.
        tightest = min(exceeded, key=lambda balance: balance.limit_nanos - balance.spent_nanos)
        raise BudgetExceeded(
            exceeded_sentence(amount, tightest),
            target=target.name,
            budget=tightest.ceiling.id,
            until_ns=tightest.window.end_ns,
        )
    return bool(amount) and any(balance.delays(amount or 0) or id(balance) in queued for balance in balances)


def busy(amount: int | None, target: Target, balances: Sequence[Balance]) -> BudgetBusy:
    """Give what is said to a hold that has waited for too long."""
    tight = [balance for balance in balances if balance.delays(amount or 0)] or balances
    return BudgetBusy(busy_sentence(amount or 0, tight[0]), target=target.name, budget=tight[0].ceiling.id)

"""What was not spent: answers given again, input from providers' caches, calls that private targets answered.

The three do not add up to one number. An avoided answer was never asked for; a discount is what a provider
took off; and against the cash that private targets did not cost stand GPU-hours, which nobody subtracts here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tiergate.catalog import PriceBook
from tiergate.core import Target, Tier, UsageSource
from tiergate.metering import cash_nanos, charged_rates
from tiergate.reports.ports import Past, Span, Spent, Used, group_of

HostedFor = Callable[[str], Sequence[Target]]
"""Gives the hosted targets that the settings name for an asked model, best first."""

_COUNTED: Final = (UsageSource.REPORTED, UsageSource.ESTIMATED)
"""A worst case is the right thing to charge and the wrong thing to boast of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoided:
    """Calls that a stored or shared answer served, their tokens, and what those would have cost."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Discounted:
    """What hosted targets read from and wrote to their prompt caches, of input whose usage is known."""

    input_tokens: int = 0
    """All of it, cached or not."""
    read_tokens: int = 0
    written_tokens: int = 0
    """Writing can cost more than input that is not cached."""
    unpriced_tokens: int = 0
    """Tokens read and written at no known price: no amount holds them."""
    nanos: int | None = 0
    """What the others cost less than uncached input: below zero where writing cost more than reading saved.

    None: no price is known.
    """
    billed_tokens: int = 0
    """How many uncached tokens would have cost the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """Calls that private targets answered, their tokens, and what those would have cost elsewhere."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unreported_calls: int = 0
    """Those whose usage nobody knows: in no other number."""
    unmatched_tokens: int = 0
    """Those for which the settings name no hosted target with a known price: no amount holds them."""
    nanos: int | None = 0
    """None: there is nothing to compare with."""
    hosted: tuple[str, ...] = ()
    """The hosted targets that it is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """One row: what it is grouped under, and the three kinds of what was not spent."""

    group: Mapping[str, str]
    avoided: Avoided
    discounted: Discounted
    private: Private


def savings(
    past: Past, span: Span, by: tuple[str, ...], *, prices: PriceBook, hosted_for: HostedFor
) -> list[Savings]:
    """Add up by the groups in `by`: what saved most first, days in their order where they come first.

    Avoided answers come from the sums of the ledger, the rest from the attempts that are kept. Prices are
    those that are known now for the time of each call.
    """
    groups: dict[tuple[str, ...], _Group] = {}

    def group_at(about: Mapping[str, str], slot: int) -> _Group:
        return groups.setdefault(group_of(about, slot, by, span.zone), _Group())

    for sums in past.spent(span, slots="day" in by):
        group_at(sums.about, sums.slot).add_avoided(sums)
    for used in past.used(span):
        found = group_at(used.about, used.slot)
        if used.target.tier is Tier.HOSTED:
            found.add_hosted(used, prices)
        else:
            found.add_private(used, prices, hosted_for(used.about["model"]))
    rows = [group.row(dict(zip(by, name, strict=True))) for name, group in groups.items() if group.tells]
    rows.sort(key=lambda row: (-_amount(row), tuple(row.group.values())))
    if by[:1] == ("day",):
        rows.sort(key=lambda row: row.group["day"])
    return rows


def _amount(row: Savings) -> int:
    return row.avoided.nanos + (row.discounted.nanos or 0) + (row.private.nanos or 0)


class _Group:
    """The sums of one row, exact until they are read."""

    def __init__(self) -> None:
        self._avoided = [0, 0, 0, 0]
        self._input = self._read = self._written = self._unpriced = 0
        self._less: dict[tuple[int, int], int] = {}
        """What was taken off, in scaled nano-dollars: by the scale and the scaled price of fresh input."""
        self._calls = self._private_input = self._private_output = self._unreported = 0
        self._unmatched = self._elsewhere = 0
        self._hosted: set[str] = set()

    @property
    def tells(self) -> bool:
        """Whether there is anything to say."""
        return any((*self._avoided, self._input, self._calls, self._unreported))

    def add_avoided(self, sums: Spent) -> None:
        # Who succeeded without an attempt was served from what was there.
        calls = 0 if sums.about["target"] else sums.succeeded
        for place, more in enumerate((calls, sums.avoided_input, sums.avoided_output, sums.avoided_nanos)):
            self._avoided[place] += more

    def add_hosted(self, used: Used, prices: PriceBook) -> None:
        usage = used.usage
        if used.source not in _COUNTED:
            return
        written = usage.cache_write_5m + usage.cache_write_1h
        self._input += usage.input_tokens
        self._read += usage.cache_read
        self._written += written
        if not (usage.cache_read or written):
            return
        rates = charged_rates(
            usage,
            prices.find(used.target, used.sent_ns),
            service_tier=used.service_tier,
            sent_ns=used.sent_ns,
            ended_ns=used.ended_ns,
        )
        if rates is None:
            self._unpriced += usage.cache_read + written
            return
        fresh, read, write_5m, write_1h = rates.scaled[:4]
        assert fresh is not None and read is not None and write_5m is not None and write_1h is not None
        less = usage.cache_read * (fresh - read)
        less += usage.cache_write_5m * (fresh - write_5m) + usage.cache_write_1h * (fresh - write_1h)
        self._less[rates.scale, fresh] = self._less.get((rates.scale, fresh), 0) + less

    def add_private(self, used: Used, prices: PriceBook, hosted: Sequence[Target]) -> None:
        usage = used.usage
        if used.source not in _COUNTED:
            self._unreported += 1
            return
        self._calls += 1
        self._private_input += usage.input_tokens
        self._private_output += usage.output_tokens
        for target in hosted:
            price = prices.find(target, used.sent_ns)
            nanos = cash_nanos(usage, price, sent_ns=used.sent_ns, ended_ns=used.ended_ns)
            if nanos is not None:
                self._elsewhere += nanos
                self._hosted.add(target.name)
                return
        self._unmatched += usage.total_tokens

    def row(self, group: Mapping[str, str]) -> Savings:
        calls, tokens_in, tokens_out, nanos = self._avoided
        taken_off = sum(Fraction(less, scale) for (scale, _), less in self._less.items())
        worth = sum(Fraction(less, fresh) for (_, fresh), less in self._less.items() if fresh)
        return Savings(
            group=group,
            avoided=Avoided(calls=calls, input_tokens=tokens_in, output_tokens=tokens_out, nanos=nanos),
            discounted=Discounted(
                input_tokens=self._input,
                read_tokens=self._read,
                written_tokens=self._written,
                unpriced_tokens=self._unpriced,
                nanos=None if self._unpriced and not self._less else round(taken_off),
                billed_tokens=round(self._input - worth),
            ),
            private=Private(
                calls=self._calls,
                input_tokens=self._private_input,
                output_tokens=self._private_output,
                unreported_calls=self._unreported,
                unmatched_tokens=self._unmatched,
                nanos=None if self._unmatched and not self._hosted else self._elsewhere,
                hosted=tuple(sorted(self._hosted)),
            ),
        )

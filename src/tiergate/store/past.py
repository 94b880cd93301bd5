"""The past for reports: fills `reports.Past` from the ledger, through a connection that can write nothing."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tiergate.core import new_id
from tiergate.reports import GROUPS, Span, Spent, Timed
from tiergate.reports.ports import SLOT_NS
from tiergate.store.reader import snapshot
from tiergate.store.statements import statements

_ABOUT: Final = GROUPS[:-1]
"""The columns by which both statements begin; the last group, `day`, is told from the slot."""
_FIRST_ID: Final = bytes(10)


class LedgerPast:
    """A `reports.Past` on the ledger of a data folder, whether somebody serves it or not."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    def spent(self, span: Span, *, slots: bool) -> Iterable[Spent]:
        """Give what was spent; see `reports.Past`.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with snapshot(self._ledger) as connection:
            facts = {**_range(span), "slots": slots, "slot_ns": SLOT_NS}
            rows = connection.execute(statements("past")["spent"], facts).fetchall()
        for row in rows:
            about, (slot, *sums) = row[: len(_ABOUT)], row[len(_ABOUT) :]
            calls, succeeded, attempts, unpriced, tokens_in, cached, tokens_out, cash, lapsed, bounded = sums
            yield Spent(
                about=dict(zip(_ABOUT, about, strict=True)),
                slot=slot,
                calls=calls,
                succeeded=succeeded,
                attempts=attempts,
                unpriced=unpriced,
                input_tokens=tokens_in,
                cached_tokens=cached,
                output_tokens=tokens_out,
                cash_nanos=cash,
                lapsed_nanos=lapsed,
                bounded_nanos=bounded,
            )

    def timed(self, span: Span) -> Iterator[Timed]:
        """Give every successful call; see `reports.Past`.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with snapshot(self._ledger) as connection:
            facts = {**_range(span), "slot_ns": SLOT_NS}
            for row in connection.execute(statements("past")["timed"], facts):
                about, (slot, first_ns, total_ns, tokens) = row[: len(_ABOUT)], row[len(_ABOUT) :]
                yield Timed(
                    about=dict(zip(_ABOUT, about, strict=True)),
                    slot=slot,
                    first_ms=None if first_ns is None else first_ns / 1e6,
                    total_ms=total_ns / 1e6,
                    output_tokens=tokens,
                )


def _range(span: Span) -> dict[str, str]:
    return {"first": new_id(max(0, span.start_ns), _FIRST_ID), "last": new_id(max(0, span.end_ns), _FIRST_ID)}

"""The past for reports: fills `reports.Past` from the ledger, through a look that can write nothing.

What is added up already (`rollups.py`) is taken from the sums, the rest from the calls, all at one moment.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

from tiergate.cache import read_prefixes
from tiergate.core import Target, Tier, Usage, UsageSource
from tiergate.ledger import About, LapsedLine, OfJob, SpentBy
from tiergate.reports import GROUPS, Marked, Prefixed, Span, Spent, Timed, Used
from tiergate.reports.ports import SLOT_NS
from tiergate.store.rows import Row, first_id
from tiergate.store.session import Look, Reading

_NO_END_NS: Final = 1 << 62
_ABOUT: Final = GROUPS[:-1]
"""The columns by which all statements begin; the last group, `day`, is told from the slot."""

_BUCKETS: Final = Usage.__struct_fields__


class LedgerPast:
    """A `reports.Past` on a ledger, whether somebody serves it or not."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def spent(self, span: Span, *, slots: bool) -> Iterable[Spent]:
        """Give what was spent; see `reports.Past`.

        Where calls are kept no longer, a span takes whole quarters of an hour: those that begin in it.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with self._look() as reading:
            rows = _spent(reading, span, slots=slots)
        return [_spent_of(row) for row in rows]

    def timed(self, span: Span) -> Iterator[Timed]:
        """Give every successful call that is kept; see `reports.Past`.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with self._look() as reading:
            facts = {**_ids(span.start_ns, span.end_ns), "slot_ns": SLOT_NS}
            for row in reading.each("past", "timed", facts):
                about, (slot, first_ns, total_ns, tokens) = row[: len(_ABOUT)], row[len(_ABOUT) :]
                yield Timed(
                    about=dict(zip(_ABOUT, about, strict=True)),
                    slot=slot,
                    first_ms=None if first_ns is None else first_ns / 1e6,
                    total_ms=total_ns / 1e6,
                    output_tokens=tokens,
                )

    def used(self, span: Span) -> Iterator[Used]:
        """Give every settled attempt that tells of savings and is kept; see `reports.Past`.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with self._look() as reading:
            facts = {**_ids(span.start_ns, span.end_ns), "slot_ns": SLOT_NS}
            for row in reading.each("past", "used", facts):
                about = dict(zip(_ABOUT, row[: len(_ABOUT)], strict=True))
                slot, sent_ns, ended_ns, service_tier, source, *buckets = row[len(_ABOUT) :]
                provider, _, model = about["target"].partition("/")
                yield Used(
                    about=about,
                    slot=slot,
                    target=Target(provider=provider, model=model, tier=Tier(about["tier"])),
                    usage=Usage(**dict(zip(_BUCKETS, buckets, strict=True))),
                    source=UsageSource(source),
                    service_tier=service_tier,
                    sent_ns=sent_ns,
                    ended_ns=ended_ns,
                )

    def marked(self, span: Span) -> Iterator[Marked]:
        """Give every call that a dry run has marked and that is kept; see `reports.Past`.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with self._look() as reading:
            facts = {**_ids(span.start_ns, span.end_ns), "slot_ns": SLOT_NS}
            for row in reading.each("past", "marked", facts):
                slot, received_ns, ended_ns, request_hash, reason, finish, *counts = row[len(_ABOUT) :]
                tokens_in, tokens_out, cash_nanos = counts
                yield Marked(
                    about=dict(zip(_ABOUT, row[: len(_ABOUT)], strict=True)),
                    slot=slot,
                    received_ns=received_ns,
                    ended_ns=ended_ns,
                    request_hash=bytes(request_hash),
                    reason=reason,
                    is_kept=finish is not None and set(finish.split(",")) == {"stop"},
                    input_tokens=tokens_in,
                    output_tokens=tokens_out,
                    cash_nanos=cash_nanos,
                )

    def prefixed(self, span: Span) -> Iterator[Prefixed]:
        """Give every call whose prompt's beginnings were recorded and that is kept; see `reports.Past`.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        with self._look() as reading:
            facts = {**_ids(span.start_ns, span.end_ns), "slot_ns": SLOT_NS}
            for row in reading.each("past", "prefixed", facts):
                slot, received_ns, hashes, tokens, read_tokens = row[len(_ABOUT) :]
                yield Prefixed(
                    about=dict(zip(_ABOUT, row[: len(_ABOUT)], strict=True)),
                    slot=slot,
                    received_ns=received_ns,
                    prefixes=read_prefixes(bytes(hashes)),
                    input_tokens=tokens,
                    read_tokens=read_tokens,
                )

    def calls_from_ns(self) -> int:
        """Give the moment from which on calls are kept; of those before there are only sums."""
        with self._look() as reading:
            ((_, calls_from_ns),) = reading.rows("past", "rolled")
        return int(calls_from_ns)


def spent_by(reading: Reading, start_ns: int, end_ns: int | None) -> list[SpentBy]:
    """Add up what ceilings ask about, and close the look.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    span = Span(start_ns=start_ns, end_ns=_NO_END_NS if end_ns is None else end_ns)
    with closing(reading):
        rows = [_spent_of(row) for row in _spent(reading, span, slots=False)]
    return [
        SpentBy(
            about=About(row.about["key"], row.about["team"] or None, row.about["model"], row.about["tier"]),
            spent_nanos=row.cash_nanos,
            lapsed_nanos=row.lapsed_nanos,
        )
        for row in rows
        if row.attempts
    ]


def spent_of_jobs(reading: Reading, jobs: Sequence[str]) -> list[SpentBy]:
    """Add up what jobs have cost, each by itself, and close the look.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    with closing(reading):
        return [SpentBy(OfJob(job), *_sums_of(reading, job)) for job in jobs]


def lapsed_lines(reading: Reading, job: str) -> list[LapsedLine]:
    """Give the attempts for a job's lines that a dead owner left and nobody has settled.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    return [LapsedLine(*row) for row in reading.rows("past", "lapsed_of_job", {"job": job})]


def _sums_of(reading: Reading, job: str) -> tuple[int, int]:
    ((spent, lapsed),) = reading.rows("past", "of_job", {"job": job})
    return int(spent), int(lapsed)


def _spent(reading: Reading, span: Span, *, slots: bool) -> list[Row]:
    ((rolled_ns, calls_from_ns),) = reading.rows("past", "rolled")
    start_ns, end_ns = max(0, span.start_ns), max(0, span.end_ns)
    # Whole slots between the two come from the sums, their edges from the calls.
    from_ns = _floor(start_ns) if start_ns < calls_from_ns else -_floor(-start_ns)
    before_ns = max(from_ns, min(_floor(end_ns), rolled_ns))
    inside = {"from_ns": from_ns, "before_ns": before_ns}
    spans = [(start_ns, min(from_ns, end_ns)), (before_ns, end_ns)]
    spans += [(slot_ns, slot_ns + SLOT_NS) for (slot_ns,) in reading.rows("past", "stale_slots", inside)]
    how = {"slots": slots, "slot_ns": SLOT_NS}
    rows = reading.rows("past", "rolled_up", {**inside, **how})
    for one_ns, other_ns in spans:
        kept_ns = max(one_ns, calls_from_ns)
        if kept_ns < other_ns:
            rows += reading.rows("past", "spent", {**_ids(kept_ns, other_ns), **how})
    return rows


def _spent_of(row: Row) -> Spent:
    about, (slot, calls, succeeded, attempts, unpriced, *sums) = row[: len(_ABOUT)], row[len(_ABOUT) :]
    uncached, read, write_5m, write_1h, output, reasoning, audio_in, audio_out, _images, *amounts = sums
    cash, lapsed, bounded, _gpu_ms, avoided_input, avoided_output, avoided = amounts
    return Spent(
        about=dict(zip(_ABOUT, about, strict=True)),
        slot=slot,
        calls=calls,
        succeeded=succeeded,
        attempts=attempts,
        unpriced=unpriced,
        input_tokens=uncached + read + write_5m + write_1h + audio_in,
        cached_tokens=read,
        output_tokens=output + reasoning + audio_out,
        cash_nanos=cash,
        lapsed_nanos=lapsed,
        bounded_nanos=bounded,
        avoided_input=avoided_input,
        avoided_output=avoided_output,
        avoided_nanos=avoided,
    )


def _ids(start_ns: int, end_ns: int) -> dict[str, str]:
    return {"first": first_id(start_ns), "last": first_id(end_ns)}


def _floor(time_ns: int) -> int:
    return time_ns - time_ns % SLOT_NS

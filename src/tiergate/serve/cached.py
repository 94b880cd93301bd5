"""Between a call and the cache: what is looked up, what is given from there, and what is kept."""

from collections.abc import Iterable
from typing import Any, Final

from msgspec import structs

from tiergate.cache import Asked, Cache, CachedAnswer, Look
from tiergate.core import (
    CacheSaid,
    Call,
    Chunk,
    NoTargetAvailable,
    Origin,
    Reply,
    Target,
    TargetFull,
    TargetThrottled,
    TiergateError,
    Unaffordable,
    UpstreamError,
    UpstreamTimeout,
)
from tiergate.ledger import Shared
from tiergate.metering import Account
from tiergate.serve.asking import Asking, looked_of
from tiergate.serve.books import CallBooks
from tiergate.serve.given import GivenStream
from tiergate.serve.kept import Recalled
from tiergate.serve.resolve import Resolved
from tiergate.wire import (
    FoldedAnswer,
    choices_asked,
    read_chunk,
    read_reply,
    with_cost,
    write_pieces,
    write_whole,
)

_FAMILIES: Final = {"chat/stream": "chat"}
"""Endpoints whose bodies mean the same as those of another one."""
_LAST_RESORT: Final = "stale-if-error"


def look(cache: Cache, call: Call, resolved: Resolved) -> Look:
    """Look a call up.

    Raises:
        NotCached: its caller wants an answer that is kept, and none is.
    """
    asked = Asked(
        tenant=call.caller.partition,
        data_class=call.data_class.value,
        family=_FAMILIES.get(call.endpoint, call.endpoint),
        entry=call.asked_model,
        revision=resolved.revision,
    )
    return cache.look(
        asked, call.body, policy=resolved.cache, control=call.cache_control, allowed=resolved.targets
    )


def give(asking: Asking, answer: CachedAnswer, books: CallBooks) -> Reply | GivenStream:
    """Answer a call with what is kept; its books, which cost nothing, say what was not spent."""
    call = asking.call
    books.said = asking.look.said
    books.shared = _shared(answer)
    books.finish = answer.answer.finish
    books.mark_first_event()
    origin = Origin(
        call_id=call.id,
        target=answer.target,
        attempts=0,
        cache=asking.look.said,
        age_s=int(answer.age_s(call.received_ns)),
    )
    forms = {} if asking.look.forms is None else asking.look.forms
    form = forms.get(call.streamed)
    if form is None:
        form = forms[call.streamed] = _form(answer.answer, streamed=call.streamed)
    if call.streamed:
        return GivenStream(books, form, origin, _account(answer))
    data, costed = form
    with books:
        return Reply(
            origin=origin,
            data=data,
            with_cost=costed,
            text=answer.answer.text,
            finish=answer.answer.finish,
            usage=answer.usage,
            cash_nanos=0,
        )


class OldGiven(Exception):
    """Every target has failed, and the call is given an answer that is too old."""

    def __init__(self, answer: CachedAnswer, said: CacheSaid) -> None:
        super().__init__("given an old answer")
        self.answer = answer
        self.said = said


def give_old(books: CallBooks, found: Look, error: TiergateError) -> None:
    """See whether an old answer is kept, when no target has given one.

    Raises:
        OldGiven: it is; the call ends well with it.
    """
    answer = found.last_resort
    if answer is None or not _has_failed(error):
        return
    assert found.policy is not None
    left_s = found.policy.ttl_s - answer.age_s(books.wall_ns(books.now()))
    said = CacheSaid(ttl_s=left_s, detail=_LAST_RESORT)
    books.rescue(_shared(answer), looked_of(said, found), answer.answer.finish)
    raise OldGiven(answer, said) from error


def recalled(answer: CachedAnswer, said: CacheSaid, *, streamed: bool) -> Recalled:
    """Give a kept answer as a flight gives it out."""
    folded = answer.answer
    return Recalled(
        call_id=answer.call_id,
        created_ns=answer.kept_ns,
        target=answer.target,
        account=_account(answer),
        chunks=_pieces(folded) if streamed else (read_reply(write_whole(folded)),),
        said=said,
    )


async def keep(
    cache: Cache, asking: Asking, chunks: Iterable[Chunk], *, target: Target, account: Account
) -> CacheSaid:
    """Keep a complete answer; give what its caller is told of it."""
    kept = await cache.keep(
        asking.look,
        tuple(chunk.data for chunk in chunks),
        choices=choices_asked(asking.call.body),
        target=target,
        call_id=asking.call.id,
        usage=account.usage,
        source=account.source,
        cash_nanos=account.cash_nanos,
    )
    said = asking.look.said
    if kept.ttl_s is None:
        assert kept.why_not is not None
        return structs.replace(said, detail=kept.why_not.value)
    return structs.replace(said, stored=True, ttl_s=kept.ttl_s)


def _has_failed(error: TiergateError) -> bool:
    """Tell whether a failure says that nobody can answer: not this question, or not in this time."""
    is_late = isinstance(error, UpstreamTimeout) and error.phase == "total"
    is_full = isinstance(error, TargetFull) and not isinstance(error, TargetThrottled)
    if isinstance(error, UpstreamError):
        return error.elsewhere and not (is_late or is_full or isinstance(error, Unaffordable))
    return isinstance(error, NoTargetAvailable)


def _form(folded: FoldedAnswer, *, streamed: bool) -> Any:
    """Write an answer as it is given: the pieces of a stream, or a body, and that with what it costs."""
    if streamed:
        return _pieces(folded)
    data = write_whole(folded)
    return data, with_cost(data, 0)


def _pieces(folded: FoldedAnswer) -> tuple[Chunk, ...]:
    ended: set[int] = set()
    return tuple(read_chunk(data, ended) for data in write_pieces(folded))


def _shared(answer: CachedAnswer) -> Shared:
    return Shared(of=answer.call_id, usage=answer.usage, cash_nanos=answer.cash_nanos)


def _account(answer: CachedAnswer) -> Account:
    return Account(usage=answer.usage, source=answer.source, cash_nanos=answer.cash_nanos)

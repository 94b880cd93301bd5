"""Calls and the cache: the same question is asked once, and whoever may not be given an answer is not."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tiergate.admission import KeyLimits, Keyring
from tiergate.cache import CachePolicy, When
from tiergate.core import (
    CacheSaid,
    CallClass,
    CallEnded,
    Caller,
    DataClass,
    EndState,
    Forwarded,
    NotCached,
    RateLimited,
    ReceiptUse,
    Reply,
    TiergateError,
    UpstreamRejected,
    UpstreamUnreachable,
    Usage,
)
from tiergate.ledger import CallClosed
from tiergate.resilience import ProviderLimits
from tiergate.serve import GivenStream, ModelEntry, SharedStream, Stopping, handle
from tiergate.wire import dumps, fold, loads, read_chunk, read_reply
from unit.serve.stage import RACK, A, Answer, B, House, run, turn, unreachable

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
SAID = Usage(input=7, output=5)
FRAME = {"id": "chatcmpl-7", "created": 1, "model": "m"}


def whole(text: str = "one two", *, finish: str = "stop", **message: Any) -> Answer:
    """A reply that is not streamed."""
    said = {"role": "assistant", "content": text, **message}
    body = {**FRAME, "choices": [{"index": 0, "message": said, "finish_reason": finish}], "usage": USAGE}
    return Answer((2.0, [read_reply(dumps(body))]))


def streamed(*texts: str, finish: str = "stop") -> Answer:
    """A stream, a second between two pieces."""
    deltas: list[tuple[dict[str, Any], str | None]] = [({"content": text}, None) for text in texts]
    steps: list[Any] = []
    for delta, end in [*deltas, ({}, finish)]:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        steps += [1.0, [read_chunk(dumps({**FRAME, "choices": [choice]}))]]
    steps.append([read_chunk(dumps({**FRAME, "choices": [], "usage": USAGE}))])
    return Answer(tuple(steps))


WHOLE, STREAM = whole(), streamed("one ", "two")
ZERO = {"model": "model", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
numbers = iter(range(1, 1_000_000))


async def ask(house: House, *, leave_after: int | None = None, **changes: Any) -> Any:
    """Be one client; give the whole reply, or the stream and the bytes of its chunks."""
    fields: dict[str, Any] = {"id": f"{next(numbers):06}call", "body": ZERO, "streamed": False, **changes}
    if fields["streamed"]:
        fields["body"] = {**fields["body"], "stream": True}
    reply = await handle(house.rooms, house.call(**fields))
    if isinstance(reply, Reply):
        return reply
    seen: list[bytes] = []
    with reply:
        if leave_after == 0:
            return reply, seen
        async for chunks in reply:
            seen += [chunk.data for chunk in chunks]
            await turn()
            if leave_after is not None and len(seen) >= leave_after:
                break
    return reply, seen


async def later(seconds: float, coroutine: Any) -> Any:
    await asyncio.sleep(seconds)
    return await coroutine


def said(answer: Any) -> CacheSaid:
    reply = answer if isinstance(answer, Reply) else answer[0]
    cache = reply.origin.cache
    assert cache is not None
    return cache


def outcomes(house: House) -> list[str | None]:
    """What the ledger says of each call at the cache, in order of their ends."""
    return [(end.looked or end.opened.looked).outcome for end in house.journal.closed]


def check(house: House) -> None:
    """Each call has one end, nothing is left open, and the two sides of the books agree."""
    ends = {closed.opened.call.id: closed for closed in house.journal.closed}
    assert len(ends) == len(house.journal.closed)
    assert not any(isinstance(record, CallClosed) for record in house.journal.ignored)
    assert house.journal.open_holds == []
    assert all(exchange.closed for exchange in house.upstream.exchanges)
    assert not house.rooms.admission.statistics().inside
    flights = house.rooms.flights
    assert (flights._all, flights._by_scope) == (set(), {})
    # What upstreams gave and what was avoided is what clients saw.
    successes = [end for end in ends.values() if end.end is EndState.SUCCESS]
    given = sum(settled.usage.output_tokens for settled in house.settled if settled.error_code is None)
    avoided = sum(end.shared.usage.output_tokens for end in successes if end.shared is not None)
    assert given + avoided == 5 * len(successes)
    told = [event for event in house.events if isinstance(event, CallEnded)]
    assert sum(event.avoided.output_tokens for event in told if event.avoided is not None) == avoided


# Hits.


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_a_question_is_asked_once(first: bool, second: bool) -> None:
    """Whoever wants a stream: the next turn is the same after a hit as after a miss."""
    house = House({"a": STREAM if first else WHOLE})

    async def twice() -> tuple[Any, Any]:
        miss = await ask(house, streamed=first)
        await asyncio.sleep(10)
        return miss, await ask(house, streamed=second)

    miss, hit = run(house, twice())
    assert len(house.upstream.sent) == 1
    assert said(hit) == CacheSaid(ttl_s=3590.0, detail="memory")
    found = [fold([one.data] if isinstance(one, Reply) else one[1]) for one in (miss, hit)]
    assert found[0] == found[1]
    assert found[0] is not None and found[0].text == "one two"
    reply = hit if isinstance(hit, Reply) else hit[0]
    assert isinstance(reply, Reply | GivenStream)
    assert (reply.origin.tier, reply.origin.attempts, reply.origin.age_s) == ("cache", 0, 10)
    assert reply.cash_nanos == 0
    if isinstance(hit, Reply):
        assert (hit.text, hit.finish, hit.usage) == ("one two", ("stop",), SAID)
    end = house.journal.closed[-1]
    assert (end.end, end.attempts, end.finish_reasons) == (EndState.SUCCESS, 0, ("stop",))
    assert end.shared is not None
    assert (end.shared.of, end.shared.usage, end.shared.cash_nanos) == (
        house.journal.closed[0].opened.call.id,
        SAID,
        17_000,
    )
    assert outcomes(house) == ["miss", "hit"]
    hashes = [end.opened.looked.request_hash for end in house.journal.closed]
    assert hashes[0] == hashes[1] and hashes[0] is not None and len(hashes[0]) == 16
    check(house)


def test_the_miss_says_that_its_answer_is_kept() -> None:
    """A whole reply can; the headers of a stream are gone before that is known."""
    house = House({"a": WHOLE, "b": STREAM})
    kept = run(house, ask(house))
    assert said(kept) == CacheSaid(forwarded=Forwarded.MISS, stored=True, ttl_s=3600.0)
    other = {**ZERO, "seed": 1}
    house.upstream._answers = {"a": STREAM}
    assert said(run(house, ask(house, streamed=True, body=other))).outcome == "miss"
    check(house)


def test_what_may_be_another_answer_is_asked_each_time() -> None:
    """And told why: without a temperature it is the provider's, which is not 0."""
    house = House({"a": WHOLE})
    body = {name: value for name, value in ZERO.items() if name != "temperature"}
    for _ in range(2):
        assert said(run(house, ask(house, body=body))) == CacheSaid(
            forwarded=Forwarded.BYPASS, detail="temperature"
        )
    assert len(house.upstream.sent) == 2
    assert [end.opened.looked.request_hash for end in house.journal.closed] == [None, None]
    check(house)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (whole(finish="length"), "unfinished"),
        (whole(finish="content_filter"), "filtered"),
        (whole(""), "empty"),
        (whole(refusal="no"), "refusal"),
        (whole(tool_calls=[{"id": "1", "type": "function"}], finish="tool_calls"), "tool-calls"),
    ],
)
def test_an_answer_that_is_none_is_not_kept(answer: Answer, why: str) -> None:
    """Cut off, filtered, refused, or one that makes its reader act."""
    house = House({"a": answer})
    for _ in range(2):
        assert said(run(house, ask(house))) == CacheSaid(forwarded=Forwarded.MISS, detail=why)
    assert len(house.upstream.sent) == 2


def test_a_model_may_keep_answers_that_call_tools() -> None:
    """Where the settings say so."""
    house = House({"a": whole(tool_calls=[{"id": "1", "type": "function"}], finish="tool_calls")})
    use_policy(house, keep_tool_calls=True)
    first, second = run(house, ask(house)), run(house, ask(house))
    assert loads(first.data)["choices"][0]["message"] == loads(second.data)["choices"][0]["message"]
    assert outcomes(house) == ["miss", "hit"]


def use_policy(house: House, **changes: Any) -> None:
    policy = CachePolicy(**changes)
    rules = house.rooms.rules
    entry = ModelEntry(targets=rules.models["model"].targets, cache=policy)
    house.rooms.rules = replace(rules, generation=2, models={"model": entry})


def test_other_targets_and_another_policy_are_another_question() -> None:
    """What was kept under the old settings is not given under new ones."""
    house = House({"a": WHOLE})
    run(house, ask(house))
    use_policy(house, ttl_s=60)
    run(house, ask(house))
    assert outcomes(house) == ["miss", "miss"]


# Who is given it.


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Caller(key="a"), Caller(key="b")),
        (Caller(key="a", team="x"), Caller(key="b", team="y")),
        (Caller(key="x"), Caller(key="a", team="x")),
    ],
)
def test_tenants_share_nothing(first: Caller, second: Caller) -> None:
    """Neither what is kept nor what is being answered; nor do a key and a team of one name."""
    house = House({"a": WHOLE})

    async def all_of_them() -> Any:
        together = await asyncio.gather(ask(house, caller=first), ask(house, caller=second))
        return [*together, await ask(house, caller=first), await ask(house, caller=second)]

    run(house, all_of_them())
    assert sorted(map(str, outcomes(house))) == ["hit", "hit", "miss", "miss"]
    assert len(house.upstream.sent) == 2
    check(house)


def test_keys_of_one_team_share() -> None:
    """That is what a team is for."""
    house = House({"a": WHOLE})
    for key in "ab":
        run(house, ask(house, caller=Caller(key=key, team="x")))
    assert outcomes(house) == ["miss", "hit"]


def test_whoever_may_not_ask_a_target_is_not_given_its_answers() -> None:
    """Another key of the same team may; neither what is kept nor what is on its way."""
    house = House({"a": WHOLE, "rack": whole("of the rack")}, targets=(A, RACK))
    free, bound = Caller(key="free", team="x"), Caller(key="bound", team="x", tiers=("private",))

    async def all_of_them() -> Any:
        together = await asyncio.gather(ask(house, caller=free), ask(house, caller=bound))
        return [*together, await ask(house, caller=bound)]

    replies = run(house, all_of_them())
    assert [reply.origin.target for reply in replies] == [A, RACK, RACK]
    check(house)


def test_what_is_kept_of_a_target_is_not_given_to_who_may_not_ask_it() -> None:
    """It asks its own, whose answer is kept in turn, and is good for both."""
    house = House({"a": WHOLE, "rack": whole("of the rack")}, targets=(A, RACK))
    free, bound = Caller(key="free", team="x"), Caller(key="bound", team="x", tiers=("private",))
    asked = [free, bound, bound, free]
    replies = [run(house, ask(house, caller=caller)) for caller in asked]
    assert [reply.origin.target for reply in replies] == [A, RACK, RACK, RACK]
    assert outcomes(house) == ["miss", "miss", "hit", "hit"]


def test_private_calls_are_a_world_of_their_own() -> None:
    """The answer to a call that may go anywhere is not given to one that may not."""
    house = House({"rack": WHOLE}, targets=(RACK,))
    for data_class in (DataClass.ANY, DataClass.PRIVATE_ONLY, DataClass.PRIVATE_ONLY):
        run(house, ask(house, data_class=data_class))
    assert outcomes(house) == ["miss", "miss", "hit"]


# One flight for one question.


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_hundred_at_once_are_answered_by_one_question(is_streamed: bool) -> None:
    """Each has all of it; one pays."""
    house = House({"a": STREAM if is_streamed else WHOLE})

    async def crowd() -> Any:
        return await asyncio.gather(*(later(n / 50, ask(house, streamed=is_streamed)) for n in range(100)))

    answers = run(house, crowd())
    assert len(house.upstream.sent) == 1
    texts = {answer.text if isinstance(answer, Reply) else fold(answer[1]).text for answer in answers}  # type: ignore[union-attr]  # they are whole
    assert texts == {"one two"}
    assert outcomes(house).count("collapsed") == 99
    assert sum(settled.cash_nanos or 0 for settled in house.settled) == 17_000
    costs = [(a if isinstance(a, Reply) else a[0]).cash_nanos for a in answers]
    assert sorted(costs) == [0] * 99 + [17_000]
    joined = next(answer for answer in answers if said(answer).collapsed)
    assert said(joined) == CacheSaid(forwarded=Forwarded.MISS, collapsed=True)
    check(house)


def test_the_question_goes_on_when_who_asked_first_leaves() -> None:
    """The one who joined has all of it, and it is kept."""
    house = House({"a": STREAM})

    async def both() -> Any:
        first, second = await asyncio.gather(
            ask(house, streamed=True, leave_after=1), later(0.5, ask(house, streamed=True))
        )
        return first, second, await ask(house, streamed=True)

    _, (reply, seen), _ = run(house, both())
    assert isinstance(reply, SharedStream)
    folded = fold(seen)
    assert folded is not None and folded.text == "one two"
    assert outcomes(house)[-1] == "hit" and len(house.upstream.sent) == 1
    check(house)


def test_what_stops_the_first_is_not_told_to_the_others() -> None:
    """Its key has made its one call of the minute; theirs have not, and ask anew, together."""
    house = House({"a": WHOLE})
    limited, free = Caller(key="limited", team="x"), Caller(key="free", team="x")
    ring = Keyring([], limits={"limited": KeyLimits(rpm=1)}, is_open=True)
    house.rooms.admission.use(ring)
    run(house, ask(house, caller=limited, body={**ZERO, "seed": 1}))

    async def crowd() -> Any:
        others = [ask(house, caller=free) for _ in range(3)]
        return await asyncio.gather(ask(house, caller=limited), *others, return_exceptions=True)

    first, *others = run(house, crowd())
    assert isinstance(first, RateLimited)
    assert [reply.text for reply in others] == ["one two"] * 3
    assert [said(reply).outcome for reply in others] == ["miss", "collapsed", "collapsed"]
    assert len(house.upstream.sent) == 2
    assert said(run(house, ask(house, caller=limited))).outcome == "hit"
    check(house)


def test_a_target_that_is_gone_is_tried_once_more_for_those_who_joined() -> None:
    """And not once for each of them."""
    house = House({"a": Answer(refusal=unreachable())}, targets=(A,), attempts=1)

    async def crowd() -> Any:
        return await asyncio.gather(*(ask(house) for _ in range(5)), return_exceptions=True)

    errors = run(house, crowd())
    assert all(isinstance(error, UpstreamUnreachable) for error in errors)
    assert len(house.upstream.sent) == 2
    assert len(house.journal.closed) == 5
    check(house)


def test_what_a_target_refuses_is_refused_to_all() -> None:
    """The question itself is wrong, whoever asks it."""
    refusal = UpstreamRejected("no such field", target=A.name, status=400)
    house = House({"a": Answer(refusal=refusal)})

    async def crowd() -> Any:
        return await asyncio.gather(*(ask(house) for _ in range(5)), return_exceptions=True)

    assert all(isinstance(error, UpstreamRejected) for error in run(house, crowd()))
    assert len(house.upstream.sent) == 1
    check(house)


@pytest.mark.parametrize(
    ("first", "second", "asked"),
    [
        (CallClass.INTERACTIVE, CallClass.BATCH, 1),
        (CallClass.BATCH, CallClass.INTERACTIVE, 2),
        (CallClass.BATCH, CallClass.BATCH, 1),
    ],
)
def test_who_is_in_a_hurry_does_not_wait_for_who_is_not(
    first: CallClass, second: CallClass, asked: int
) -> None:
    """A batch call may be in the back of a line."""
    house = House({"a": WHOLE})

    async def both() -> Any:
        return await asyncio.gather(ask(house, call_class=first), later(0.1, ask(house, call_class=second)))

    run(house, both())
    assert len(house.upstream.sent) == asked
    check(house)


def test_who_wants_it_whole_joins_a_stream() -> None:
    """It comes no later; who wants a stream does not wait for a whole answer."""
    house = House({"a": STREAM})

    async def both() -> Any:
        return await asyncio.gather(ask(house, streamed=True), later(0.5, ask(house)))

    (_, seen), reply = run(house, both())
    folded = fold(seen)
    assert folded is not None and folded == fold([reply.data])
    assert (reply.text, reply.finish, said(reply).collapsed) == ("one two", ("stop",), True)
    assert len(house.upstream.sent) == 1
    house.upstream._answers = {"a": WHOLE}
    body = {**ZERO, "seed": 1}

    async def the_other_way() -> Any:
        asking = asyncio.create_task(ask(house, body=body))
        await asyncio.sleep(0.5)
        house.upstream._answers = {"a": STREAM}
        return await asyncio.gather(asking, ask(house, body=body, streamed=True))

    run(house, the_other_way())
    assert len(house.upstream.sent) == 3
    check(house)


def test_a_long_stream_is_read_by_who_wants_it_whole() -> None:
    """Too long to be kept: it is taken piece by piece as it comes."""
    long = streamed(*["x" * 120_000] * 12)
    house = House({"a": long})

    async def both() -> Any:
        return await asyncio.gather(ask(house, streamed=True), later(0.5, ask(house)))

    (_, seen), reply = run(house, both())
    assert reply.text == "x" * 1_440_000
    assert len(house.upstream.sent) == 1 and len(seen) == 14
    assert house.cache.held().answers == 0
    check(house)


def test_a_reader_that_leaves_a_kept_stream_is_in_the_books() -> None:
    """It was given nothing that was avoided."""
    house = House({"a": WHOLE})
    run(house, ask(house))
    reply, _ = run(house, ask(house, streamed=True, leave_after=0))
    assert isinstance(reply, GivenStream)
    end = house.journal.closed[-1]
    assert (end.end, end.shared) == (EndState.CLIENT_CLOSED, None)
    check(house)


# What callers say.


def test_no_store_and_no_cache() -> None:
    """The one keeps and takes nothing; the other keeps, and joins nobody."""
    house = House({"a": WHOLE})

    async def all_of_them() -> Any:
        store = await ask(house, cache_control="no-store")
        again = await ask(house)
        fresh = await asyncio.gather(*(ask(house, cache_control="no-cache") for _ in range(2)))
        return store, again, *fresh, await ask(house)

    store, again, fresh, _, last = run(house, all_of_them())
    assert said(store) == CacheSaid(forwarded=Forwarded.BYPASS, detail="no-store")
    assert said(again).outcome == "miss"
    assert said(fresh) == CacheSaid(forwarded=Forwarded.REQUEST, stored=True, ttl_s=3600.0, detail="no-cache")
    assert said(last).outcome == "hit"
    assert len(house.upstream.sent) == 4
    check(house)


@pytest.mark.parametrize(
    ("control", "after_s", "outcome"),
    [
        ("max-age=5", 4, "hit"),
        ("max-age=5", 6, "request"),
        ("min-fresh=100", 3_400, "hit"),
        ("min-fresh=100", 3_550, "request"),
        (None, 3_599, "hit"),
        (None, 3_601, "stale"),
        ("max-stale=10", 3_605, "stale"),
        ("max-stale=10", 3_615, "stale"),
        (None, 7_300, "miss"),
    ],
)
def test_how_old_an_answer_may_be(control: str | None, after_s: float, outcome: str) -> None:
    """By its own time, and by what its caller says."""
    house = House({"a": WHOLE})

    async def twice() -> Any:
        await ask(house)
        await asyncio.sleep(after_s)
        return await ask(house, cache_control=control)

    reply = run(house, twice())
    assert said(reply).outcome == outcome
    is_given = outcome == "hit" or (control is not None and "stale" in control and after_s < 3_610)
    assert len(house.upstream.sent) == (1 if is_given else 2)


def test_only_if_cached() -> None:
    """Nobody is asked; what is not there is an error of its own."""
    house = House({"a": WHOLE})
    with pytest.raises(NotCached):
        run(house, ask(house, cache_control="only-if-cached"))
    with pytest.raises(NotCached):
        run(house, ask(house, cache_control="only-if-cached", body={**ZERO, "temperature": 1}))
    assert house.journal.closed == [] and house.upstream.sent == []
    run(house, ask(house))
    assert said(run(house, ask(house, cache_control="only-if-cached"))).outcome == "hit"


# When nobody answers.


def test_an_old_answer_is_the_last_resort() -> None:
    """Every target fails: whoever asks, and joins, is given it and told so; the failures are in the books."""
    house = House({"a": WHOLE}, targets=(A, B))

    async def story() -> Any:
        await ask(house)
        await asyncio.sleep(4_000)
        gone = {name: Answer(refusal=unreachable(f"{name}/m")) for name in "ab"}
        house.upstream._answers = gone
        return await asyncio.gather(ask(house), ask(house, streamed=True), ask(house))

    first, (stream, seen), joined = run(house, story())
    assert said(first).detail == "stale-if-error" and -403 < (said(first).ttl_s or 0) < -397
    assert said(first).outcome == said(joined).outcome == stream.origin.cache.outcome == "stale"
    assert first.text == joined.text == "one two"
    folded = fold(seen)
    assert folded is not None and folded.text == "one two"
    assert (first.origin.tier, first.origin.attempts, first.cash_nanos) == ("cache", 2, 0)
    assert outcomes(house) == ["miss", "stale", "stale", "stale"]
    ends = house.journal.closed[1:]
    assert {end.end for end in ends} == {EndState.SUCCESS}
    assert sorted(end.attempts for end in ends) == [0, 2, 2]
    assert all(end.shared is not None and end.first_event_ns is not None for end in ends)
    check(house)


@pytest.mark.parametrize("why", ["too old", "refused", "switched off"])
def test_the_last_resort_has_its_limits(why: str) -> None:
    """Beyond its time, for a question that is wrong, and where the settings say so, there is none."""
    house = House({"a": WHOLE}, targets=(A,))
    if why == "switched off":
        use_policy(house, stale_if_error_s=0)
    refusal = UpstreamRejected("no", target=A.name, status=400) if why == "refused" else unreachable()

    async def story() -> Any:
        await ask(house)
        await asyncio.sleep(8_000 if why == "too old" else 4_000)
        house.upstream._answers = {"a": Answer(refusal=refusal)}
        await ask(house)

    with pytest.raises(type(refusal)):
        run(house, story())
    assert house.journal.closed[-1].end is EndState.FAILED


# Beside receipts.


def test_a_call_with_a_receipt_is_given_what_is_kept() -> None:
    """A row of a batch is asked for once, whoever asked before; sent again it is looked up again."""
    house = House({"a": WHOLE})

    async def story() -> list[Any]:
        return [await ask(house), *[await ask(house, idempotency_key="k") for _ in range(2)]]

    replies = run(house, story())
    assert [reply.origin.receipt for reply in replies] == [None, None, None]
    assert outcomes(house) == ["miss", "hit", "hit"]
    assert len(house.upstream.sent) == 1
    check(house)


def test_a_receipt_comes_before_the_cache() -> None:
    """Its answer is the same also when that of the cache is another one by now."""
    house = House({"a": WHOLE})

    async def story() -> list[Any]:
        first = await ask(house, idempotency_key="k")
        house.upstream._answers = {"a": whole("another")}
        renewed = await ask(house, cache_control="no-cache")
        return [first, renewed, await ask(house, idempotency_key="k"), await ask(house)]

    first, renewed, again, hit = run(house, story())
    assert [first.text, renewed.text, again.text, hit.text] == ["one two", "another"] * 2
    assert again.origin.receipt is ReceiptUse.REPLAYED and again.origin.cache is None
    assert first.origin.receipt is ReceiptUse.NEW and said(first).stored
    check(house)


# Without keeping anything.


def test_a_dry_run_gives_nothing_and_notes_what_it_could() -> None:
    """Under the setting as it is, and under `always`."""
    house = House({"a": WHOLE})
    house.cache.is_dry = True
    warm = {**ZERO, "temperature": 0.7}
    stateful = {**ZERO, "previous_response_id": "r"}
    replies = [run(house, ask(house, body=body)) for body in (ZERO, ZERO, warm, warm, stateful)]
    assert [said(reply).detail for reply in replies] == [
        *("dry-run", "dry-run"),
        *("dry-run-always", "dry-run-always"),
        "stateful",
    ]
    assert len(house.upstream.sent) == 5
    hashes = [end.opened.looked.request_hash for end in house.journal.closed]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3] and hashes[4] is None
    with pytest.raises(NotCached):
        run(house, ask(house, cache_control="only-if-cached"))


def test_a_purge_takes_what_is_kept() -> None:
    """Of one tenant, or of one model."""
    house = House({"a": WHOLE})
    callers = [Caller(key="a", team="x"), Caller(key="b")]
    for caller in callers:
        run(house, ask(house, caller=caller))
    assert run(house, house.cache.purge("team:x")) == 1
    for caller in callers:
        run(house, ask(house, caller=caller))
    assert outcomes(house) == ["miss", "miss", "miss", "hit"]
    assert run(house, house.cache.purge(entry="model")) == 2
    assert house.cache.held().answers == 0


def test_when_always_the_temperature_has_no_say() -> None:
    """A model of a bot that answers questions that come again and again."""
    house = House({"a": WHOLE})
    use_policy(house, when=When.ALWAYS)
    body = {"model": "model", "messages": ZERO["messages"]}
    for _ in range(2):
        run(house, ask(house, body=body))
    assert outcomes(house) == ["miss", "hit"]


def test_the_clock_of_the_house_is_the_clock_of_answers() -> None:
    """Put back, it makes nothing younger than new."""
    house = House({"a": WHOLE})
    run(house, ask(house))
    house.clock.jump_wall(-3_600)
    assert said(run(house, ask(house))).ttl_s == 3600.0


# What must not take an answer away from who has paid for it.


@pytest.mark.parametrize(
    "more",
    [b',"odd":123456789012345678901234567890', b',"odd":{"a":[18446744073709551616]}'],
)
def test_an_answer_that_cannot_be_kept_is_given(more: bytes) -> None:
    """A number beyond 64 bits in a field that nobody has heard of."""
    body = WHOLE.steps[1][0].data  # type: ignore[index,union-attr]  # the step of a chunk
    house = House({"a": Answer(([read_reply(body[:-1] + more + b"}")],))})
    for _ in range(2):
        reply = run(house, ask(house))
        assert reply.text == "one two" and not said(reply).stored
    assert len(house.upstream.sent) == 2
    check(house)


def test_an_event_that_is_no_piece_is_given_and_nothing_is_kept() -> None:
    """Nor is it put together for who wants it whole: they ask themselves."""
    good = streamed("one ", "two")
    odd = Answer((*good.steps[:2], [read_chunk(b'{"choices":true,"usage":null,"x":1}')], *good.steps[2:]))
    house = House({"a": odd})

    async def both() -> Any:
        joining = asyncio.create_task(later(0.5, ask(house)))
        first = await ask(house, streamed=True)
        house.upstream._answers = {"a": WHOLE}
        return first, await joining

    (_, seen), reply = run(house, both())
    assert len(seen) == 5 and reply.text == "one two"
    assert house.cache.kept["unknown-form"] == 1


def test_a_call_with_a_receipt_that_was_given_an_old_answer_is_asked_anew() -> None:
    """Its key is free again: what it was given was nobody's answer to it."""
    house = House({"a": WHOLE}, targets=(A,))

    async def story() -> list[Any]:
        await ask(house)
        await asyncio.sleep(4_000)
        house.upstream._answers = {"a": Answer(refusal=unreachable())}
        old = await ask(house, idempotency_key="k")
        house.upstream._answers = {"a": whole("new")}
        return [old, await ask(house, idempotency_key="k"), await ask(house, idempotency_key="k")]

    old, new, again = run(house, story())
    assert said(old).outcome == "stale" and [new.text, again.text] == ["new", "new"]
    assert (new.origin.receipt, again.origin.receipt) == (ReceiptUse.NEW, ReceiptUse.REPLAYED)
    check(house)


def test_nobody_is_told_what_stopped_the_second_either() -> None:
    """Two keys of a team are at their limits; who asks with a third is answered."""
    house = House({"a": WHOLE})
    names = ["one", "two", "free"]
    callers = [Caller(key=name, team="x") for name in names]
    limits = {name: KeyLimits(rpm=1) for name in names[:2]}
    house.rooms.admission.use(Keyring([], limits=limits, is_open=True))
    for caller in callers[:2]:
        run(house, ask(house, caller=caller, body={**ZERO, "seed": 1}, cache_control="no-cache"))

    async def crowd() -> Any:
        return await asyncio.gather(
            *(ask(house, caller=caller) for caller in callers), return_exceptions=True
        )

    *refused, answered = run(house, crowd())
    assert [str(error).split("'")[1] for error in refused] == ["one", "two"]
    assert answered.text == "one two"
    check(house)


def test_the_first_ones_short_time_gives_nobody_an_old_answer() -> None:
    """The target is well, and has a place in a moment: who has more time is answered by it."""
    house = House({"a": WHOLE}, targets=(A,), limits={"a": ProviderLimits(concurrency=1)})

    async def story() -> Any:
        await ask(house)
        await asyncio.sleep(4_000)
        house.upstream._answers = {"a": whole("new")}
        before = asyncio.create_task(ask(house, cache_control="no-store", body={**ZERO, "seed": 1}))
        await asyncio.sleep(1.2)
        return await asyncio.gather(before, ask(house, time_limit_s=0.5), ask(house), return_exceptions=True)

    _, hasty, patient = run(house, story())
    assert isinstance(hasty, TiergateError)
    assert (patient.text, said(patient).outcome) == ("new", "stale") and said(patient).forwarded is not None
    check(house)


def test_when_the_gateway_stops_nobody_asks_again() -> None:
    """Those who wait are told; no new flight begins."""
    house = House({"a": WHOLE})

    async def story() -> Any:
        asking = [asyncio.create_task(ask(house)) for _ in range(3)]
        await asyncio.sleep(0.5)
        await house.rooms.flights.aclose()
        return await asyncio.gather(*asking, return_exceptions=True)

    assert all(isinstance(error, Stopping) for error in run(house, story()))
    assert len(house.upstream.sent) == 1
    check(house)


def test_a_dry_run_that_begins_meanwhile_keeps_nothing() -> None:
    """Settings may be read again while a call runs."""
    house = House({"a": WHOLE})

    async def story() -> Any:
        asking = asyncio.create_task(ask(house))
        await asyncio.sleep(1)
        house.cache.use(bytes_max=1 << 20, is_dry=True, records_prefixes=False)
        return await asking

    assert said(run(house, story())).detail == "dry-run"
    assert house.cache.held().answers == 0


def test_text_does_not_outlive_its_answer() -> None:
    """What was read and written for many goes with what is kept, whoever finds that its time is over."""
    house = House({"a": WHOLE})

    async def story() -> None:
        for _ in range(3):
            await ask(house)
        assert len(house.cache._opened) == 1
        await asyncio.sleep(8_000)
        await ask(house, cache_control="no-store")
        with pytest.raises(NotCached):
            await ask(house, cache_control="only-if-cached")

    run(house, story())
    assert len(house.cache._opened) == 0

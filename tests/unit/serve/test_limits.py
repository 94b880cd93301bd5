"""A call and the limits of its key: what it asks for, what it gives back, when its place is free."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tiergate.admission import Admission, KeyLimits, Keyring
from tiergate.core import LOCAL, Caller, ModelNotFound, RateLimited, Reply, UpstreamFault
from tiergate.serve import STOPPING, Exchange, Question, StreamReply, handle
from unit.serve.stage import (
    ONE,
    REPLY,
    ROLE,
    SAID,
    STOP,
    TWO,
    USAGE,
    Answer,
    House,
    PlayedExchange,
    broken,
    run,
)

CI = Caller(key="ci")
STREAM = Answer(([ROLE], [ONE], [TWO, STOP], [USAGE]))
"""In no time, so that time takes nothing away."""
LIMIT = 1_000
ASKED = 80 // 4 + 100
"""A quarter of the question's bytes, and the 100 tokens of output that it allows."""


class Limited(House):
    """A house in which calls are those of a key with limits."""

    def __init__(self, answers: Mapping[str, Answer], **limits: int) -> None:
        super().__init__(answers)
        keyring = Keyring([], limits={"ci": KeyLimits(**limits)})
        self.rooms.admission = Admission(keyring, monotonic=self.clock.monotonic)

    def call(self, **changes: Any) -> Any:
        return super().call(**{"caller": CI, **changes})

    def used(self) -> int:
        """Give how many tokens are taken now."""
        found = self.rooms.admission.allowance(CI)
        assert found is not None and found.tokens is not None
        return LIMIT - found.tokens.left

    def places(self) -> int | None:
        found = self.rooms.admission.allowance(CI)
        assert found is not None
        return found.places


def after(answers: Mapping[str, Answer], **how: Any) -> int:
    """Let one call run to its end, at once, and give what it has used of its key's tokens."""
    house = Limited(answers, tpm=LIMIT)

    run(house, house.answer(house.call(**how)))
    house.check()
    return house.used()


def test_while_it_runs_all_that_it_may_use_is_taken() -> None:
    """Input as far as bytes tell, and every choice as long as it may become."""
    house = Limited({"a": STREAM}, tpm=LIMIT)

    async def client() -> None:
        body = {"model": "model", "messages": [], "max_tokens": 100, "n": 3}
        for changes, taken in (({}, ASKED), ({"body": body, "id": "01other"}, 80 // 4 + 300)):
            with await handle(house.rooms, house.call(**changes)) as reply:
                assert isinstance(reply, StreamReply)
                assert house.used() == taken
            house.clock.advance(60)

    run(house, client())


def test_a_picture_is_not_counted_by_its_bytes() -> None:
    """Of a question with one the text is; what the picture was is known when the call ends."""
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:" + "x" * 4_000}},
    ]
    body = {"model": "model", "messages": [{"role": "user", "content": content}], "max_tokens": 1}
    house = Limited({"a": STREAM}, tpm=LIMIT)

    async def client() -> None:
        with await handle(house.rooms, house.call(body=body, prompt_bytes=4_300)):
            assert house.used() == 4 + 1

    run(house, client())


@pytest.mark.parametrize("streamed", [True, False])
def test_what_was_reported_counts_in_the_end(*, streamed: bool) -> None:
    """Input and output together."""
    assert after({"a": STREAM if streamed else REPLY}, streamed=streamed) == SAID.total_tokens


def test_all_attempts_count_together() -> None:
    """Also those that broke off and were paid for; one that was refused used nothing."""
    refused = Answer(refusal=UpstreamFault("500", target="a/m", status=500))
    assert after({"a": refused, "b": REPLY}, streamed=False) == SAID.total_tokens
    unread = Answer(([ROLE], broken()))
    # Nobody reported: the prompt, as far as its bound tells, and nothing of an answer.
    prompt = (80 + 16 + 64) // 4
    assert after({"a": unread, "b": REPLY}, streamed=False) == SAID.total_tokens + prompt


def test_an_answer_without_a_report_counts_what_was_seen() -> None:
    """And not the bound that is charged, which no caller reaches by breaking off."""
    house = Limited({"a": Answer(([ONE], [TWO], 60.0, [STOP]))}, tpm=LIMIT)
    run(house, house.answer(house.call(), leave_after=2))
    house.check()
    (settled,) = house.settled
    assert settled.usage.total_tokens == 80 + 16 + 64 + 100
    assert house.used() == (80 + 16 + 64) // 4 + 2


def test_a_call_that_asks_nobody_does_not_count() -> None:
    """It was refused before its key's limits were looked at."""
    house = Limited({"a": REPLY}, tpm=LIMIT, rpm=1)

    async def client() -> None:
        for _ in range(3):
            with pytest.raises(ModelNotFound):
                await handle(house.rooms, house.call(asked_model="nonsense"))
        assert house.used() == 0
        await house.answer(house.call())
        with pytest.raises(RateLimited, match="rpm"):
            await handle(house.rooms, house.call())

    run(house, client())


def test_a_refused_call_leaves_no_trace_in_the_books() -> None:
    """No record, no hold, nothing sent."""
    house = Limited({"a": REPLY}, tpm=1)

    async def client() -> None:
        with await handle(house.rooms, house.call()), pytest.raises(RateLimited):
            await handle(house.rooms, house.call())

    run(house, client())
    assert len(house.journal.held) == len(house.journal.closed) == len(house.upstream.sent) == 1


@pytest.mark.parametrize("places", [1, 3, 10])
def test_of_many_calls_at_once_as_many_get_in_as_there_are_places(places: int) -> None:
    """However they interleave."""
    house = Limited({}, concurrency=places)
    house.rooms.upstream = Everybody()

    async def client() -> None:
        found = await asyncio.gather(
            *[house.answer(house.call(id=f"01call{number}")) for number in range(10)], return_exceptions=True
        )
        assert sum(isinstance(one, StreamReply) for one in found) == places
        assert sum(isinstance(one, RateLimited) for one in found) == 10 - places

    run(house, client())
    assert house.places() == places


class Everybody:
    """A `serve.Upstream` that answers any number of calls at once."""

    async def send(self, question: Question) -> Exchange:
        question.mark_sent()
        await asyncio.sleep(1)
        return PlayedExchange(STREAM, question)


BEGUN = Answer(([ONE], 5.0, [TWO, STOP]))


@pytest.mark.parametrize("way", ["ends", "breaks off", "is left", "is cancelled", "is closed", "stops"])
def test_a_stream_keeps_its_place_until_it_is_over(way: str) -> None:
    """Whichever way: not when the reply is handed out, and not later than its last event."""
    house = Limited({"a": Answer(([ONE], 5.0, broken())) if way == "breaks off" else BEGUN}, concurrency=1)

    async def read(reply: StreamReply) -> None:
        with reply:
            async for _ in reply:
                if way == "is left":
                    return

    async def client() -> None:
        reply = await handle(house.rooms, house.call())
        assert isinstance(reply, StreamReply)
        assert house.places() == 0
        if way == "is closed":
            reply.close()
            return
        reading = asyncio.create_task(read(reply))
        await asyncio.sleep(1)
        if way != "is left":
            with pytest.raises(RateLimited):
                await handle(house.rooms, house.call(id="01other"))
        if way in ("is cancelled", "stops"):
            reading.cancel(STOPPING if way == "stops" else None)
        await asyncio.wait([reading])
        reading.cancelled() or reading.exception()

    run(house, client())
    assert house.places() == 1
    house.check()


def test_a_whole_reply_frees_its_place_before_it_is_handed_out() -> None:
    """And one that failed as well."""
    house = Limited({"a": REPLY}, concurrency=1)

    async def client() -> None:
        for number in range(3):
            assert isinstance(await handle(house.rooms, house.call(id=f"0{number}", streamed=False)), Reply)
        house.upstream._answers = {"a": Answer(refusal=broken()), "b": Answer(refusal=broken("b/m"))}
        for number in range(3, 6):
            with pytest.raises(Exception, match="broke off"):
                await handle(house.rooms, house.call(id=f"0{number}", streamed=False))

    run(house, client())


def test_a_caller_without_a_key_has_no_limits() -> None:
    """The Python door, and everybody in open mode: no key of such a name can be."""
    house = Limited({"a": REPLY}, rpm=1, tpm=1, concurrency=1)

    async def client() -> None:
        for number in range(5):
            await house.answer(house.call(id=f"0{number}", caller=LOCAL, streamed=False))

    run(house, client())
    assert house.rooms.admission.allowance(LOCAL) is None


def test_who_is_given_anothers_answer_uses_no_tokens() -> None:
    """Joined and replayed answers cost the limits what they cost the budget: they need no place, either."""
    house = Limited({"a": STREAM}, tpm=LIMIT, rpm=1, concurrency=1)

    async def client(number: int) -> None:
        stream = await handle(house.rooms, house.call(id=f"0{number}call", idempotency_key="k"))
        assert not isinstance(stream, Reply)
        with stream:
            async for _ in stream:
                pass

    async def clients() -> None:
        await asyncio.gather(client(1), client(2))
        await client(3)

    run(house, clients())
    assert house.used() == SAID.total_tokens
    assert house.places() == 1


def test_a_flight_keeps_the_place_of_whoever_pays_for_it() -> None:
    """Also when that one has left: what is used counts, and the place is free when the flight is over."""
    house = Limited({"a": Answer(([ROLE], [ONE], 5.0, [TWO, STOP], [USAGE]))}, tpm=LIMIT, concurrency=1)

    async def client() -> None:
        first, second = [
            await handle(house.rooms, house.call(id=f"0{number}call", idempotency_key="k"))
            for number in (1, 2)
        ]
        assert not isinstance(first, Reply) and not isinstance(second, Reply)
        assert house.places() == 0
        first.close()
        assert house.places() == 0
        second.close()
        assert house.places() == 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert house.places() == 1

    run(house, client())
    # Cut: nobody reported, so the prompt counts and what was seen of the answer.
    assert house.used() > 0

"""How a line is asked: as a call of its job's key, and what comes of it as a line of the output."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tiergate.batch import Claimed, Finished, Job, LineAsks, Said
from tiergate.core import (
    CallClass,
    Caller,
    Cause,
    DataClass,
    InvalidKey,
    JobLine,
    Notice,
    TiergateError,
    UpstreamRejected,
    UpstreamUnreachable,
)
from tiergate.ledger import LapsedLine, LineState
from tiergate.wire import dumps, read_reply
from unit.serve.stage import A, Answer, House, run, unreachable

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
REPLY = {
    "id": "chatcmpl-7",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}
WHOLE = Answer((2.0, [read_reply(dumps(REPLY))]))
ALICE = Caller(key="alice", team="web")


def a_job(house: House, **facts: Any) -> Job:
    now_ns = house.clock.wall_ns()
    known = {"id": "batch_1", "tenant": "team:web", "key": "alice", "endpoint": CHAT, "input_file": "file-1"}
    times = {"concurrency": 8, "window_s": 3600, "created_ns": now_ns, "deadline_ns": now_ns + 60_000_000_000}
    return Job(**{**known, **times, **facts})


def line(n: int = 3, *, body: Any = BODY, **facts: Any) -> Claimed:
    row = {"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": body}
    return Claimed(n, json.dumps(row).encode(), **facts)


async def nothing_of(job: str) -> list[LapsedLine]:
    raise AssertionError("nobody died")


def asking(
    house: House,
    caller: Caller | None = ALICE,
    lapsed_of: Callable[[str], Awaitable[list[LapsedLine]]] = nothing_of,
) -> LineAsks:
    return LineAsks(
        house.rooms,
        caller_of=lambda key: caller if key == "alice" else None,
        lapsed_of=lapsed_of,
        say=lambda error: Said(418, error.code, dumps({"error": {"message": str(error)}})),
        randomness=bytes,
    )


def asked(
    house: House, one: Claimed | None = None, *, job: Job | None = None, asks: LineAsks | None = None
) -> Finished:
    """Ask a line, and see that nothing of its call is left open."""
    asks = asks or asking(house)
    finished = run(house, asks.ask(job or a_job(house), one or line()))
    assert house.journal.open_holds == []
    return finished


def output(finished: Finished) -> dict[str, Any]:
    written = finished.output
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    read: dict[str, Any] = json.loads(written)
    return read


def test_an_answer_is_the_end_of_a_line() -> None:
    """With what was used and paid, and which attempt answered."""
    house = House({"a": WHOLE})
    finished = asked(house)
    (settled,) = house.settled
    assert replace(finished, output=b"") == Finished(
        n=3,
        state=LineState.DONE,
        output=b"",
        call_id=house.closed.opened.call.id,
        attempt=1,
        input_tokens=7,
        output_tokens=5,
        cash_nanos=settled.cash_nanos or 0,
    )
    assert settled.cash_nanos


def test_it_stands_in_the_output_as_its_provider_gave_it() -> None:
    """Beside it what it cost, and who answered."""
    told = output(asked(House({"a": WHOLE})))
    assert told["custom_id"] == "line-3"
    response = told["response"]
    assert (response["status_code"], told["error"]) == (200, None)
    beside = told["tiergate"]
    assert response["body"]["usage"].pop("cost") == beside["cost_usd"]
    assert {name: response["body"][name] for name in REPLY} == REPLY
    assert (beside["n"], beside["target"], beside["tier"], beside["attempts"]) == (3, "a/m", "hosted", 1)
    assert 0 < beside["cost_usd"] < 1


def test_a_line_is_a_call_of_its_jobs_key() -> None:
    """Of a batch, of that line, and with the job's tag."""
    house = House({"a": WHOLE})
    asked(house, job=a_job(house, tag="nightly"))
    call = house.closed.opened.call
    assert (call.caller, call.cause, call.call_class) == (ALICE, Cause.BATCH, CallClass.BATCH)
    assert call.line == JobLine(job="batch_1", n=3)
    assert (call.tag, call.endpoint, call.asked_model, call.streamed) == ("nightly", "chat", "model", False)
    assert call.prompt_bytes == len(line().text)


@pytest.mark.parametrize(
    ("of_job", "of_key"),
    [(DataClass.PRIVATE_ONLY, DataClass.ANY), (DataClass.ANY, DataClass.PRIVATE_ONLY)],
)
def test_the_stricter_data_class_holds(of_job: DataClass, of_key: DataClass) -> None:
    """Nothing of it leaves the house."""
    house = House({"a": WHOLE})
    asks = asking(house, replace(ALICE, data_class=of_key))
    with pytest.raises(TiergateError):
        run(house, asks.ask(a_job(house, data_class=of_job), line()))
    assert house.upstream.asked == []


@pytest.mark.parametrize(("left_s", "limit_s"), [(60.0, 60.0), (0.25, 1.0), (-5.0, 1.0)])
def test_a_call_has_the_time_that_its_job_has(left_s: float, limit_s: float) -> None:
    """But a second at least."""
    house = House({"a": WHOLE})
    deadline_ns = house.clock.wall_ns() + int(left_s * 1e9)
    asks = asking(house)
    call = asks._call(a_job(house, deadline_ns=deadline_ns), line(), BODY, "model", None)
    assert call.time_limit_s == limit_s


def test_what_a_dead_owner_had_asked_is_told_with_the_call() -> None:
    """Until it is answered. Who died a moment ago is found when its line is asked, and looked for once."""
    looked: list[str] = []

    async def lapsed_of(job: str) -> list[LapsedLine]:
        looked.append(job)
        await asyncio.sleep(1)
        return [LapsedLine(3, "01before", 1), LapsedLine(4, "01other", 1)]

    house = House({"a": WHOLE})
    asks = asking(house, lapsed_of=lapsed_of)
    asked(house, line()._replace(interrupted=1), asks=asks)
    assert house.closed.opened.call.line == JobLine(job="batch_1", n=3, resent_of="01before")
    assert asked(house, asks=asks).state is LineState.DONE
    assert looked == ["batch_1"]

    async def together() -> list[str | None]:
        lines = [line()._replace(n=n, interrupted=1) for n in (3, 4, 3, 5)]
        return await asyncio.gather(*(asks._resent(a_job(house), one) for one in lines))

    assert run(house, together()) == ["01before", "01other", "01before", None]
    assert looked == ["batch_1"] * 2


def test_a_line_that_names_no_model_asks_for_that_of_the_job() -> None:
    """One of a batch for many."""
    house = House({"a": WHOLE})
    body = {name: value for name, value in BODY.items() if name != "model"}
    assert asked(house, line(body=body), job=a_job(house, model="model")).state is LineState.DONE


def test_a_bad_line_has_its_end_at_once() -> None:
    """Nobody is asked."""
    house = House({"a": WHOLE})
    finished = asked(house, line(body={**BODY, "stream": True}))
    assert (finished.state, finished.error_code, finished.cash_nanos) == (LineState.FAILED, "invalid_line", 0)
    told = output(finished)
    assert (told["custom_id"], told["response"], told["tiergate"]) == ("line-3", None, {"n": 3})
    assert told["error"] == {
        "code": "invalid_line",
        "message": "`stream` means nothing in a batch; leave it out.",
    }
    assert house.upstream.asked == [] and house.journal.held == []


def test_a_key_that_opens_nothing_any_more_asks_nothing() -> None:
    """It was taken away since."""
    house = House({"a": WHOLE})
    with pytest.raises(InvalidKey, match="'alice'"):
        run(house, asking(house, None).ask(a_job(house), line()))
    assert house.upstream.asked == []


def test_what_a_target_says_is_for_whoever_asks() -> None:
    """Whether to ask again is not decided here."""
    house = House({"a": Answer(refusal=unreachable())}, targets=(A,), attempts=1)
    with pytest.raises(UpstreamUnreachable):
        run(house, asking(house).ask(a_job(house), line()))


def test_a_bug_is_one_lines_and_told() -> None:
    """With where it was in the log, and not in the output; its own words may be somebody's text."""
    house = House({})
    with pytest.raises(TiergateError, match="Its log says where") as told:
        run(house, asking(house).ask(a_job(house), line()))
    assert "KeyError" not in str(told.value)
    (notice,) = [event for event in house.events if isinstance(event, Notice)]
    assert "(KeyError in " in notice.message and repr(told.value.__cause__) not in notice.message
    assert str(told.value.__cause__) not in notice.message


# Ends without an answer.


def test_a_line_that_was_asked_in_vain_says_what_was_said() -> None:
    """In the words of the data plane, with its status."""
    house = House({})
    finished = asking(house).failed(a_job(house), line(tries=4), UpstreamRejected("no", status=400))
    assert (finished.n, finished.state, finished.error_code) == (3, LineState.FAILED, "invalid_request")
    told = output(finished)
    assert told["custom_id"] == "line-3" and told["error"] is None
    assert told["response"]["status_code"] == 418
    assert told["response"]["body"] == {"error": {"message": "no"}}
    assert told["tiergate"] == {"n": 3, "tries": 5}


def test_a_line_that_owners_died_with_says_how_often() -> None:
    """So whoever reads it may look into it."""
    house = House({})
    finished = asking(house).poisoned(a_job(house), line(interrupted=5))
    assert (finished.state, finished.error_code) == (LineState.FAILED, "poison_line")
    assert "died 5 times" in output(finished)["error"]["message"]


@pytest.mark.parametrize(
    ("times", "code"),
    [
        ({"cancel_ns": 1}, "batch_cancelled"),
        ({"expired_ns": 1}, "batch_expired"),
        ({"cancel_ns": 1, "expired_ns": 1}, "batch_cancelled"),
    ],
)
def test_a_line_that_was_not_asked_says_why(times: dict[str, int], code: str) -> None:
    """Its batch was cancelled, or expired."""
    house = House({})
    finished = asking(house).unasked(a_job(house, **times), line())
    assert (finished.state, finished.error_code) == (LineState.CANCELLED, code)
    assert output(finished)["error"]["code"] == code


@pytest.mark.parametrize("text", [b"no line", b"{}", b"\xff"])
def test_a_line_without_a_name_has_an_end_too(text: bytes) -> None:
    """Its number tells which it is."""
    house = House({})
    asks, one = asking(house), Claimed(9, text)
    job = a_job(house, cancel_ns=1)
    for finished in (asks.unasked(job, one), asks.poisoned(job, one), asks.bad(one, "bad")):
        told = output(finished)
        assert (told["custom_id"], told["tiergate"]["n"]) == (None, 9)

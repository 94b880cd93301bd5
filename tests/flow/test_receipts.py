"""The Idempotency-Key, with the official client and with processes that die in between."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from flow.conftest import KEY
from flow.recorder import Recorder, Seen, Wire, answer_well, chunk, completion
from flow.recorder import whole as whole_answer
from house import GatewayProcess, calls_of, cli, until
from tiergate import Gateway
from tiergate.core import ReceiptUse
from tiergate.ledger import HoldState
from tiergate.testing import MockProcess

QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as made:
        yield made


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def whole(client: OpenAI, key: str, **asked: Any) -> Any:
    """The raw response of one call with this key."""
    fields = {"model": "good", "messages": QUESTION, "max_tokens": 50, **asked}
    return client.chat.completions.with_raw_response.create(**fields, extra_headers=keyed(key))


def test_the_same_question_is_answered_again_for_nothing(client: OpenAI, mock: MockProcess) -> None:
    """The same answer under an id of its own, told as a hit; the provider was asked once."""
    before = len(calls_of(mock, "good"))
    first, second = whole(client, "again"), whole(client, "again")
    one, other = first.parse(), second.parse()
    assert one.choices == other.choices
    assert one.id == other.id
    assert first.headers["x-tiergate-receipt"] == "new"
    assert first.headers["cache-status"] == "tiergate; fwd=bypass; detail=temperature"
    assert second.headers["x-tiergate-receipt"] == "replayed"
    assert second.headers["cache-status"] == "tiergate; hit; detail=receipt"
    assert int(second.headers["age"]) in range(60)
    assert second.headers["x-tiergate-tier"] == "cache"
    assert second.headers["x-tiergate-target"] == "main/good"
    assert second.headers["x-tiergate-attempts"] == "0"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert float(first.headers["x-tiergate-cost-usd"]) > 0
    assert float(second.headers["x-tiergate-cost-usd"]) == other.usage.cost == 0
    assert other.usage.total_tokens == one.usage.total_tokens
    assert len(calls_of(mock, "good")) == before + 1


def test_another_question_with_the_same_key_is_refused(client: OpenAI) -> None:
    """As the official client's own error class, with a stable code and what to do."""
    whole(client, "reused")
    with pytest.raises(openai.UnprocessableEntityError) as told:
        whole(client, "reused", max_tokens=51)
    assert told.value.code == "idempotency_key_reused"
    assert "new key" in str(told.value)


@pytest.mark.parametrize("key", ["x" * 256, "über"])
def test_a_key_that_cannot_be_one_is_refused(gateway: GatewayProcess, key: str) -> None:
    """Its limits are told."""
    with (
        OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as client,
        pytest.raises((openai.BadRequestError, UnicodeEncodeError)) as told,
    ):
        whole(client, key)
    assert isinstance(told.value, UnicodeEncodeError) or "Idempotency-Key" in str(told.value)


def test_a_stream_is_replayed_as_a_stream(client: OpenAI, mock: MockProcess) -> None:
    """With the usage that was asked for, at no cost."""
    before = len(calls_of(mock, "good"))

    def chunks() -> list[Any]:
        return list(
            client.chat.completions.create(
                model="good",
                messages=QUESTION,
                max_tokens=50,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers=keyed("streamed"),
            )
        )

    first, second = chunks(), chunks()
    assert [one.choices for one in first] == [one.choices for one in second]
    assert first[-1].usage.total_tokens == second[-1].usage.total_tokens
    assert (first[-1].usage.cost > 0, second[-1].usage.cost) == (True, 0)
    assert len(calls_of(mock, "good")) == before + 1


def test_streams_of_one_question_at_one_time_are_one_stream(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """Who comes late reads from the beginning; one pays."""
    before = len(calls_of(mock, "slow"))

    async def read(client: AsyncOpenAI, wait_s: float) -> tuple[str, str]:
        await asyncio.sleep(wait_s)
        raw = await client.chat.completions.with_raw_response.create(
            model="slow", messages=QUESTION, max_tokens=40, stream=True, extra_headers=keyed("joined")
        )
        pieces = [piece async for piece in raw.parse()]
        return raw.headers["x-tiergate-receipt"], "".join(
            piece.choices[0].delta.content or "" for piece in pieces if piece.choices
        )

    async def all_of_them() -> list[tuple[str, str]]:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as client:
            return await asyncio.gather(*(read(client, wait_s) for wait_s in (0, 0.3, 0.6)))

    told = asyncio.run(all_of_them())
    assert [use for use, _ in told] == ["new", "joined", "joined"]
    assert len({text for _, text in told}) == 1
    assert told[0][1]
    assert len(calls_of(mock, "slow")) == before + 1


def test_a_client_that_retries_by_itself_is_charged_once(gateway: GatewayProcess, mock: MockProcess) -> None:
    """It gives up too early, sends the same again with the same key, and is given the first one's answer."""
    before = len(calls_of(mock, "slow"))
    with (
        OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as client,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(whole, client, "retried", model="slow", max_tokens=30)
        until(lambda: len(calls_of(mock, "slow")) > before, what="the first question")
        second = whole(client, "retried", model="slow", max_tokens=30)
        first = waiting.result()
    assert first.parse().choices == second.parse().choices
    assert second.headers["x-tiergate-receipt"] == "joined"
    assert len(calls_of(mock, "slow")) == before + 1


def test_a_failure_frees_the_key(client: OpenAI) -> None:
    """Each try is a try."""
    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as told:
            whole(client, "fails", model="fails")
        assert told.value.status_code == 502


def test_an_answer_that_is_too_long_is_not_kept(client: OpenAI, recorder: Recorder) -> None:
    """Who asks again is told which call was answered, and not to try for ever."""
    long = completion("x" * 1_100_000)
    recorder.play = lambda seen, wire: wire.send(whole_answer(long))
    first = whole(client, "long", model="kept")
    recorder.play = answer_well
    with pytest.raises(openai.ConflictError) as told:
        whole(client, "long", model="kept")
    assert told.value.code == "answer_not_kept"
    assert first.headers["x-request-id"] in str(told.value)
    assert told.value.response.headers["x-should-retry"] == "false"


def test_a_long_answer_in_flight_cannot_be_joined(client: OpenAI, recorder: Recorder) -> None:
    """It is read at its first reader's pace; a second one is asked to come back."""
    go_on = threading.Event()

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        for _ in range(12):
            wire.event(chunk("x" * 100_000))
        go_on.wait(10)
        wire.event(chunk("", finish="stop"))
        wire.end_stream()

    recorder.play = play
    asked: Any = {"model": "kept", "messages": QUESTION, "stream": True, "extra_headers": keyed("in flight")}
    stream = client.chat.completions.create(**asked)
    seen = [next(stream) for _ in range(12)]
    with pytest.raises(openai.ConflictError) as told:
        client.chat.completions.create(**asked)
    go_on.set()
    recorder.play = answer_well
    assert told.value.code == "idempotency_key_in_use"
    assert told.value.response.headers["retry-after"] == "1"
    assert len(seen + list(stream)) == 13


# Over restarts.


def house(folder: Path, mock: MockProcess) -> GatewayProcess:
    settings = {
        "providers": {"main": {"base_url": mock.base_url, "api_keys": ["sk-provider-main-0123456789"]}},
        "models": {name: {"targets": [f"main/{name}"]} for name in ("good", "slow", "silent")},
        "prices": [
            {"target": f"main/{name}", "usd_per_1m": {"input": 1, "output": 2}} for name in ("good", "slow")
        ],
    }
    return GatewayProcess(folder, settings)


def test_an_answer_outlives_the_process(tmp_path: Path, mock: MockProcess) -> None:
    """Killed after the answer was settled: the next process gives it again."""
    with house(tmp_path, mock) as process:
        with OpenAI(base_url=process.base_url, api_key="x", max_retries=0) as client:
            first = whole(client, "kept")
            # What settles is written a moment after it was said.
            until(
                lambda: (
                    '"state":"settled"'
                    in cli("entries", "show", first.headers["x-request-id"], "--json", folder=tmp_path).stdout
                ),
                what="the settlement",
            )
        process.stop(signal.SIGKILL)
        process.start()
        with OpenAI(base_url=process.base_url, api_key="x", max_retries=0) as client:
            again = whole(client, "kept")
        assert again.headers["x-tiergate-receipt"] == "replayed"
        assert again.parse().choices == first.parse().choices
        shown = cli("entries", "show", again.headers["x-request-id"], folder=tmp_path).stdout
        assert f"replayed, of {first.headers['x-request-id']}" in shown


def test_a_question_that_a_crash_cut_off_may_be_asked_again(tmp_path: Path, mock: MockProcess) -> None:
    """It is charged, since nobody knows what became of it; the second one says whose place it takes."""
    with house(tmp_path, mock) as process:
        with (
            OpenAI(base_url=process.base_url, api_key="x", max_retries=0) as client,
            ThreadPoolExecutor() as pool,
        ):
            before = len(calls_of(mock, "slow"))
            waiting = pool.submit(whole, client, "cut", model="slow", max_tokens=60)
            until(lambda: len(calls_of(mock, "slow")) > before, what="the question")
            process.stop(signal.SIGKILL)
            assert isinstance(waiting.exception(), openai.APIConnectionError)
        process.start()
        with OpenAI(base_url=process.base_url, api_key="x", max_retries=0) as client:
            again = whole(client, "cut", model="slow", max_tokens=60, timeout=30)
            with pytest.raises(openai.UnprocessableEntityError):
                whole(client, "cut", model="slow", max_tokens=3)
        assert again.headers["x-tiergate-receipt"] == "resent"
        assert process.stop() == 0
        lapsed, resent = process.ledger()
    assert [attempt.state for attempt in lapsed.attempts] == [HoldState.LAPSED]
    assert [attempt.state for attempt in resent.attempts] == [HoldState.SETTLED]
    assert (lapsed.receipt, resent.receipt) == (ReceiptUse.NEW, ReceiptUse.RESENT)
    assert resent.answer_of == lapsed.call_id


def test_python_has_keys_too(tmp_path: Path, mock: MockProcess) -> None:
    """The same by the Python door, inside of the owner and through it; both know the same receipts."""
    process = house(tmp_path, mock)

    async def ask() -> Any:
        async with Gateway.from_config(process.settings_file) as gateway:
            asked: Any = {"model": "good", "max_tokens": 20, "idempotency_key": "py"}
            reply = await gateway.chat(QUESTION, **asked)
            pieces = [piece async for piece in gateway.stream(QUESTION, **{**asked, "idempotency_key": "s"})]
            return reply, "".join(piece.text for piece in pieces)

    inside = asyncio.run(ask())
    with process:
        through = asyncio.run(ask())
    assert inside[0].origin.receipt is ReceiptUse.NEW
    assert through[0].origin.receipt is ReceiptUse.REPLAYED
    assert through[0].tier == "cache"
    assert through[0].cost_usd == 0
    assert inside[0].text == through[0].text
    assert inside[1] == through[1]

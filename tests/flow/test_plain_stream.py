"""The contract of `POST /v1/chat/stream`: pieces of text as plain events, then the account of the answer."""

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flow.conftest import KEY
from flow.plain_http import Answer, ask, asking, bearer, read_answer
from flow.recorder import Recorder, Seen, Wire, answer_well, chunk
from house import GatewayProcess, calls_of
from tiergate.testing import MockProcess

PATH = "/v1/chat/stream"
QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]


def plain(gateway: GatewayProcess, headers: Sequence[tuple[str, str]] = (), **body: Any) -> Answer:
    asked = {"model": "good", "messages": QUESTION, **body}
    return ask(gateway.port, PATH, asked, headers=[bearer(KEY), *headers])


@pytest.fixture
def record(recorder: Recorder) -> Iterator[Recorder]:
    recorder.seen.clear()
    yield recorder
    recorder.play = answer_well


def test_pieces_then_the_account(gateway: GatewayProcess) -> None:
    """Each event is one piece of the answer; the last says that it is complete, and what it took."""
    answer = plain(gateway)
    assert answer.status == 200
    assert answer.whole
    *pieces, last = [json.loads(event) for event in answer.events]
    assert len(pieces) == 12
    assert all(set(piece) == {"content"} and piece["content"] for piece in pieces)
    assert set(last) == {"done", "usage", "ttft_ms", "latency_ms", "cost_usd"}
    assert last["done"] is True
    prompt, output = last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]
    assert output == 12
    assert last["usage"]["total_tokens"] == prompt + output
    assert last["cost_usd"] == pytest.approx((prompt + 2 * output) / 1e6)
    assert 0 < last["ttft_ms"] <= last["latency_ms"]


def test_text_is_that_of_the_whole_answer(gateway: GatewayProcess) -> None:
    """The pieces add up to what the OpenAI endpoint answers to the same question."""
    body = {"model": "good", "messages": QUESTION}
    whole = ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEY)]).json
    text = "".join(json.loads(event).get("content", "") for event in plain(gateway).events)
    assert text == whole["choices"][0]["message"]["content"]


def test_headers(gateway: GatewayProcess) -> None:
    """It is a stream of events that no proxy may hold back, and says where it came from."""
    answer = plain(gateway)
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("x-tiergate-target") == "main/good"
    line = gateway.log_of(answer.call_id)
    assert (line["endpoint"], line["streamed"], line["end"]) == ("chat/stream", True, "success")


def test_the_providers_pieces_are_kept(gateway: GatewayProcess, record: Recorder) -> None:
    """Reasoning, roles and other events without text are left out; text keeps its pieces, odd ones too."""
    words = ["a\nb", '"quoted"', "é\u2028𝄞", "</script>"]

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        thought = {"index": 0, "delta": {"role": "assistant", "reasoning_content": "hm"}}
        wire.event(json.dumps({"choices": [thought]}).encode())
        for word in words:
            wire.event(chunk(word))
        wire.event(chunk("", finish="stop"))
        wire.end_stream()

    record.play = play
    answer = plain(gateway, model="kept")
    assert [json.loads(event).get("content") for event in answer.events] == [*words, None]


def test_parameters_reach_the_provider(gateway: GatewayProcess, record: Recorder) -> None:
    """Model, messages, temperature and max_tokens go on as they are, and a stream is asked for."""
    plain(gateway, model="kept", temperature=0.5, max_tokens=40)
    assert record.last.json == {
        "model": "upstream-name",
        "messages": QUESTION,
        "temperature": 0.5,
        "max_tokens": 40,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_each_piece_leaves_when_it_arrives(gateway: GatewayProcess, record: Recorder) -> None:
    """The provider says the next word only after the caller has read the one before."""
    read = threading.Semaphore(0)

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        for word in ("one", "two"):
            wire.event(chunk(word))
            if not read.acquire(timeout=5):
                return
        wire.event(chunk("", finish="stop"))
        wire.end_stream()

    record.play = play
    body = {"model": "kept", "messages": QUESTION}
    with asking(gateway.port, PATH, body, headers=[bearer(KEY)]) as connection:
        connection.read_until(b'data: {"content":"one"}\n\n')
        read.release()
        connection.read_until(b'data: {"content":"two"}\n\n')
        read.release()
        connection.read_until(b'"done":true')


def test_usage_that_nobody_reported_is_not_made_up(gateway: GatewayProcess, record: Recorder) -> None:
    """A bound is no count, so there is none; without a price the cost is null."""
    answer = plain(gateway, model="kept", max_tokens=5)
    last = json.loads(answer.events[-1])
    assert last["cost_usd"] is None
    assert last["usage"] is None


@pytest.mark.parametrize("stream", [False, "yes", 1])
def test_stream_cannot_be_switched_off(gateway: GatewayProcess, *, stream: object) -> None:
    """The endpoint always streams: a body that says otherwise is refused."""
    answer = plain(gateway, stream=stream)
    assert answer.status == 400
    assert answer.error["param"] == "stream"


def test_stream_true_changes_nothing(gateway: GatewayProcess) -> None:
    """A body that says what the endpoint does anyway is fine."""
    assert json.loads(plain(gateway, stream=True).events[-1])["done"] is True


def test_failure_before_the_first_piece_is_an_answer(gateway: GatewayProcess) -> None:
    """What fails before any text has its status and an error object, not a stream."""
    answer = plain(gateway, model="fails")
    assert answer.status == 502
    assert answer.header("content-type") == "application/json"
    assert answer.error["code"] == "upstream_fault"


def test_failure_after_a_piece_ends_the_connection(gateway: GatewayProcess, mock: MockProcess) -> None:
    """What breaks off says so in the stream, gives no account, and ends without the last chunk."""
    answer = plain(gateway, model="cut")
    assert answer.status == 200
    assert not answer.whole
    *pieces, last = [json.loads(event) for event in answer.events]
    assert pieces
    assert all(set(piece) == {"content"} for piece in pieces)
    assert last["error"]["code"] == "upstream_protocol_error"
    assert gateway.log_of(answer.call_id)["end"] == "interrupted"
    assert calls_of(mock, "cut")[-1]["streamed"] is True


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "good"}, "messages"),
        ({"messages": QUESTION}, "model"),
        ({"model": "good", "messages": []}, "messages"),
        ({"model": "good", "messages": "hello"}, "messages"),
        ({"model": "good", "messages": QUESTION, "max_tokens": -1}, "max_tokens"),
        ({"model": 7, "messages": QUESTION}, "model"),
    ],
)
def test_bad_bodies_name_the_field(gateway: GatewayProcess, body: dict[str, Any], param: str) -> None:
    """A body that cannot be is refused with the field's name."""
    answer = ask(gateway.port, PATH, body, headers=[bearer(KEY)])
    assert answer.status == 400
    assert answer.error["param"] == param
    assert answer.error["code"] == "invalid_request"


def test_only_post(gateway: GatewayProcess) -> None:
    """Another method is told which one there is."""
    answer = ask(gateway.port, PATH, headers=[bearer(KEY)])
    assert answer.status == 405
    assert answer.header("allow") == "POST"
    assert answer.error["code"] == "not_found"


def test_leaving_frees_the_provider(gateway: GatewayProcess, record: Recorder) -> None:
    """A caller that leaves is noticed within a second."""
    freed = threading.Event()

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("word"))
        if wire.has_left(5):
            freed.set()

    record.play = play
    body = {"model": "kept", "messages": QUESTION}
    with asking(gateway.port, PATH, body, headers=[bearer(KEY)]) as connection:
        head = connection.read_until(b'data: {"content":"word"}\n\n')
    assert freed.wait(1.0)
    call_id = read_answer(head).call_id
    assert gateway.log_of(call_id)["end"] == "client_closed"

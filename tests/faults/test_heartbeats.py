"""F04: a stream that is silent for long is kept alive by comments, and nothing is promised by them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from flow.plain_http import Answer, ask, asking, read_answer
from house import GatewayProcess, calls_of, until
from tiergate.testing import MockProcess

SCRIPT = """
default: {words: 6, ttft_ms: 1}
rules:
  - {when: {model: slow}, then: {words: 6, ttft_ms: 900}}
  - {when: {model: thinks}, then: {words: 6, ttft_ms: 700, early_headers: true}}
  - {when: {model: hangs}, then: {hang: true}}
  - {when: {model: pauses}, then: {words: 3, ttft_ms: 1, tokens_per_s: 1.4}}
  - {when: {model: fails}, then: {status: 500, wait_ms: 700}}
"""
QUESTION: Any = [{"role": "user", "content": "hi"}]
BEAT = b": waiting"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess, **resilience: Any) -> dict[str, Any]:
    names = ("slow", "thinks", "hangs", "pauses", "fails", "well")
    return {
        "providers": {name: {"base_url": mock.base_url} for name in names},
        "models": {name: {"targets": [f"{name}/{name}"]} for name in names}
        | {"pair": {"targets": ["hangs/hangs", "well/well"]}},
        "prices": [
            {"target": f"{name}/{name}", "usd_per_1m": {"input": 1, "output": 1}}
            for name in ("hangs", "well")
        ],
        "resilience": {"heartbeat_s": 0.25, "first_event_s": 1, "attempts": 2, **resilience},
    }


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("beats"), settings(mock)) as process:
        yield process
        process.check_books()


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as made:
        yield made


def question(model: str, *, streamed: bool = True, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": QUESTION, "stream": streamed, **more}


def chat(gateway: GatewayProcess, model: str, *, path: str = "completions", **more: Any) -> Answer:
    return ask(gateway.port, f"/v1/chat/{path}", question(model, **more))


@pytest.mark.parametrize("model", ["slow", "thinks"])
def test_comments_come_before_the_first_content(gateway: GatewayProcess, model: str) -> None:
    """The headers with the first of them; the answer is whole after that."""
    answer = chat(gateway, model, stream_options={"include_usage": True})
    assert answer.status == 200 and answer.whole
    before, _, after = answer.body.partition(b"data:")
    assert before.count(BEAT) >= 2
    assert BEAT not in after
    assert answer.header("x-request-id") and answer.header("x-tiergate-target") is None
    assert answer.events[-1] == "[DONE]"
    usage = json.loads(answer.events[-2])["usage"]
    assert (usage["target"], usage["tier"], usage["attempts"]) == (f"{model}/{model}", "hosted", 1)


def test_a_quick_answer_has_its_headers_and_no_comment(gateway: GatewayProcess) -> None:
    """Nobody waits for the first heartbeat."""
    answer = chat(gateway, "well", stream_options={"include_usage": True})
    assert answer.header("x-tiergate-target") == "well/well" and BEAT not in answer.body
    assert "target" not in json.loads(answer.events[-2])["usage"]


def test_a_pause_in_the_middle_is_filled_too(gateway: GatewayProcess) -> None:
    """Between two events, and never inside of one."""
    answer = chat(gateway, "pauses")
    assert answer.whole and answer.events[-1] == "[DONE]"
    middle = answer.body[answer.body.index(b"data:") :]
    assert middle.count(BEAT) >= 2
    for frame in answer.body.split(b"\n\n"):
        assert frame == b"" or frame == BEAT or frame.startswith(b"data: "), frame


def test_the_target_may_change_behind_a_comment(gateway: GatewayProcess, client: OpenAI) -> None:
    """The first one never answered; the official client sees one answer."""
    pieces = list(
        client.chat.completions.create(model="pair", messages=question("pair")["messages"], stream=True)
    )
    assert pieces[-1].choices[0].finish_reason == "stop"
    answer = chat(gateway, "pair", stream_options={"include_usage": True})
    usage = json.loads(answer.events[-2])["usage"]
    assert (usage["target"], usage["attempts"]) == ("well/well", 2)
    assert usage["cost"] is not None


@pytest.mark.parametrize("model", ["hangs", "fails"])
def test_a_failure_behind_a_comment_is_an_event(gateway: GatewayProcess, client: OpenAI, model: str) -> None:
    """The status has gone: the error object stands in the stream, and the connection breaks off."""
    answer = chat(gateway, model)
    assert answer.status == 200 and not answer.whole
    (last,) = (json.loads(data) for data in answer.events)
    assert last["error"]["code"] == ("upstream_timeout" if model == "hangs" else "upstream_fault")
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=model, messages=QUESTION, stream=True))


def test_the_plain_stream_has_them_too(gateway: GatewayProcess) -> None:
    """And says at its end where it came from."""
    answer = chat(gateway, "slow", path="stream")
    assert answer.whole and answer.body.count(BEAT) >= 2
    done = json.loads(answer.events[-1])
    assert done["done"] is True and done["target"] == "slow/slow"
    broken = chat(gateway, "hangs", path="stream")
    assert not broken.whole and set(json.loads(broken.events[-1])) == {"error"}


def test_a_whole_answer_has_none(gateway: GatewayProcess) -> None:
    """JSON has no comments."""
    answer = chat(gateway, "slow", streamed=False)
    assert answer.status == 200 and BEAT not in answer.body
    assert answer.header("x-tiergate-target") == "slow/slow"


def test_who_leaves_behind_a_comment_frees_the_provider(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Though nothing of the answer has come."""
    before = len(calls_of(mock, "slow"))
    with asking(gateway.port, "/v1/chat/completions", question("slow")) as connection:
        connection.read_until(BEAT)
    until(
        lambda: [one for one in calls_of(mock, "slow")[before:] if one["ended"] == "aborted"],
        what="the abort",
    )


def test_a_stop_behind_a_comment_is_told(mock: MockProcess, tmp_path: Path) -> None:
    """F36: the stream ends with an error and not in silence."""
    with GatewayProcess(tmp_path, settings(mock, first_event_s=60), drain_s=0.5) as gateway:
        with asking(gateway.port, "/v1/chat/completions", question("hangs")) as connection:
            connection.read_until(BEAT)
            assert gateway.stop() == 0
            answer = read_answer(connection.read_to_end())
        assert not answer.whole
        assert json.loads(answer.events[-1])["error"]["code"] == "shutting_down"
        gateway.check_books()


def test_switched_off_the_headers_wait_for_the_answer(mock: MockProcess, tmp_path: Path) -> None:
    """And a failure keeps its status."""
    with GatewayProcess(tmp_path, settings(mock, heartbeat_s=None)) as gateway:
        assert BEAT not in chat(gateway, "slow").body
        assert chat(gateway, "hangs").status == 504

"""S17: where a message ends is never two readers' opinion, neither a caller's nor a provider's."""

import re
from collections.abc import Iterator

import pytest

from faults.framings import FRAMED, KEY, REFUSED, REPLIES, Reply, Row, question
from flow.plain_http import Answer, Connection, ask, bearer
from flow.recorder import Recorder, Seen, Wire, answer_well, completion, whole
from house import GatewayProcess

CANARY = question("canary").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
FINDS = {
    *(f"s{n}" for n in range(1, 49)),
    *(f"t{n}" for n in range(1, 26) if n != 8),  # the list has no eighth
    *(f"b{n}" for n in range(1, 6)),
    "bb1",
    "bb2",
}


def echo(seen: Seen, wire: Wire) -> None:
    """Answer with what was asked, so that each answer names its question."""
    wire.send(whole(completion(f"answer to {seen.json['messages'][-1]['content']}")))


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder(echo) as upstream:
        yield upstream


@pytest.fixture
def record(recorder: Recorder) -> Iterator[Recorder]:
    recorder.seen.clear()
    yield recorder
    recorder.play = echo


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    # One server, so that all of them share its connections, and a provider for each way to fail.
    names = ["main", *(f"odd{n}" for n in range(len(REPLIES)))]
    settings = {
        "auth": "keys",
        "keys": [{"name": "ci", "secret": KEY}],
        "providers": {name: {"base_url": recorder.base_url} for name in names},
        "models": {"good": {"targets": ["main/up"]}},
    }
    with GatewayProcess(tmp_path_factory.mktemp("framing"), settings) as process:
        yield process
        process.check_books()


def hear(gateway: GatewayProcess, row: Row) -> tuple[list[int], bytes]:
    """Send a row and the canary; give the statuses of all that comes until the gateway hangs up, and it."""
    with Connection(gateway.port, timeout_s=10) as connection:
        connection.send(row.sent + CANARY)
        received = connection.read_to_end()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", received)], received


def asked(record: Recorder) -> list[str]:
    return [seen.json["messages"][-1]["content"] for seen in record.seen]


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_s17_what_can_be_read_in_two_ways_is_refused(
    gateway: GatewayProcess, record: Recorder, row: Row
) -> None:
    """S17: no provider hears of it nor of what stands behind it, and the connection ends."""
    statuses, _ = hear(gateway, row)
    assert statuses in ([], [400], [413], [414], [431])
    assert record.seen == []


@pytest.mark.parametrize("row", FRAMED.values(), ids=FRAMED)
def test_s17_what_has_one_end_is_read_to_it(gateway: GatewayProcess, record: Recorder, row: Row) -> None:
    """S17: each question is asked once and answered in its turn; what is hidden in a body is asked never."""
    statuses, received = hear(gateway, row)
    assert statuses == list(row.statuses)
    assert received.startswith(b"HTTP/1.")
    assert asked(record) == list(row.asked)
    answers = [text.decode() for text in re.findall(rb"answer to (\w+)", received)]
    assert answers == list(row.asked)


def test_s17_a_trailer_opens_nothing(gateway: GatewayProcess, record: Recorder) -> None:
    """S17: a key that comes behind the body is none."""
    row = FRAMED["trailer named as a key and a host"]
    key = f"Bearer {KEY}".encode()
    without = row.sent.replace(b"Authorization: " + key + b"\r\n", b"").replace(b"Bearer x", key)
    assert hear(gateway, Row(sent=without))[0] == [401]
    assert record.seen == []


def test_s17_every_find_of_the_list_is_tried() -> None:
    """S17: all 79."""
    tried = {find for row in (*REFUSED.values(), *FRAMED.values()) for find in row.of.split()}
    assert tried == FINDS
    assert len(FINDS) == 79


# The other side: what a provider sends.


@pytest.mark.parametrize("name", REPLIES)
def test_s17_surplus_of_a_provider_never_reaches_the_next_reply(
    gateway: GatewayProcess, record: Recorder, name: str
) -> None:
    """S17, F11: what cannot be framed for certain is 502; what stands behind a reply is nobody's."""
    reply: Reply = REPLIES[name]

    def play(seen: Seen, wire: Wire) -> None:
        if seen.json["model"] == "odd":
            wire.send(reply.sent)
        else:
            answer_well(seen, wire)

    record.play = play
    first = chat(gateway, f"odd{list(REPLIES).index(name)}/odd", streamed=reply.streamed)
    assert first.status == (200 if reply.good else 502)
    assert first.whole and (b"mine" in first.body) is reply.good
    following = [chat(gateway, "good", streamed=streamed) for streamed in (False, True)]
    for answer in (first, *following):
        assert b"canary" not in answer.raw
    for answer in following:
        assert answer.status == 200 and b"hello" in answer.body


def chat(gateway: GatewayProcess, model: str, *, streamed: bool) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": streamed}
    return ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEY)])

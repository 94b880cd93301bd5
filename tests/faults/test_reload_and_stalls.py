"""Settings read again and processes that stop, under load: nobody is failed, cut silently or asked twice.

Names carry the row of the fault matrix or the invariant.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask, asking
from house import GatewayProcess, calls_of, until
from tiergate.core import EndState
from tiergate.testing import MockProcess

SCRIPT = """
default: {words: 6, ttft_ms: 1}
rules:
  - {when: {model: brief}, then: {words: 12, tokens_per_s: 60}}
  - {when: {model: steady}, then: {words: 40, tokens_per_s: 25}}
  - {when: {model: quick}, then: {words: 20, tokens_per_s: 25}}
  - {when: {model: endless}, then: {words: 2000, tokens_per_s: 20}}
  - {when: {model: "busy*"}, then: {words: 4, ttft_ms: 1200}}
  - {when: {model: late}, then: {words: 4, ttft_ms: 20000}}
  - {when: {model: "peace*", first: 4}, then: {status: 429, headers: {retry-after-ms: 1200}}}
  - {when: {model: "ill-fails", header: {authorization: "*ILL0"}}, then: {status: 503}}
  - {when: {model: "ill-resets", header: {authorization: "*ILL0"}}, then: {reset_after: 2, words: 9}}
  - {when: {model: "ill-hangs", header: {authorization: "*ILL0"}}, then: {hang: true}}
  - {when: {model: "ill-stalls", header: {authorization: "*ILL0"}}, then: {stall_after: 3}}
  - {when: {model: "ill-drips", header: {authorization: "*ILL0"}}, then: {trickle_ms: 200}}
  - {when: {model: "ill-garbles", header: {authorization: "*ILL0"}}, then: {garbage: 300}}
  - {when: {model: hangs}, then: {hang: true}}
  - {when: {model: stalls}, then: {stall_after: 3}}
  - {when: {model: drips}, then: {trickle_ms: 50, words: 400}}
  - {when: {model: slow-head}, then: {slow_headers_ms: 20000}}
  - {when: {model: fails}, then: {status: 503, wait_ms: 150}}
  - {when: {model: throttles}, then: {status: 429}}
"""
ILL = ("ill-fails", "ill-resets", "ill-hangs", "ill-stalls", "ill-drips", "ill-garbles")
OLD, NEW = "sk-provider-0123456789-OLD0", "sk-provider-0123456789-NEW0"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def other_mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def chat(gateway: GatewayProcess, model: str, *headers: tuple[str, str], streamed: bool = False) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
    return ask(gateway.port, "/v1/chat/completions", body, headers=headers, timeout_s=30)


def is_complete(answer: Answer, *, streamed: bool) -> bool:
    """Tell whether an answer is all there, and says so."""
    if answer.status != 200 or not answer.whole:
        return False
    return answer.events[-1] == "[DONE]" if streamed else bool(answer.json["choices"])


def keys_seen(mock: MockProcess, model: str) -> list[str]:
    """Give the last four characters of the keys that a model was asked with, in order."""
    return [call["headers"]["authorization"][-4:] for call in calls_of(mock, model)]


def came(mock: MockProcess, model: str, count: int) -> None:
    until(lambda: len(calls_of(mock, model)) == count, what=f"{count} calls of {model}")


# F39, F40: settings read again.


def test_f39_streams_outlive_their_model_and_their_key(mock: MockProcess, tmp_path: Path) -> None:
    """They end as they began; a file with one mistake changes nothing, not even what is right in it."""
    provider = {"base_url": mock.base_url, "api_keys": [OLD]}
    settings: dict[str, Any] = {
        "providers": {"main": provider},
        "models": {"first": {"targets": ["main/steady"]}, "both": {"targets": ["main/well"]}},
    }
    with GatewayProcess(tmp_path, settings) as gateway, ThreadPoolExecutor(8) as pool:
        before = len(calls_of(mock, "steady"))
        streams = [pool.submit(chat, gateway, "first", streamed=True) for _ in range(8)]
        came(mock, "steady", before + 8)

        rotated = {"main": {**provider, "api_keys": [NEW]}}
        gateway.write({"providers": rotated, "models": {"first": {"targets": ["nobody/x"]}}})
        assert gateway.reload()["event"] == "reload_refused"
        assert chat(gateway, "both").status == 200
        assert keys_seen(mock, "well") == ["OLD0"]

        gateway.write({"providers": rotated, "models": {"both": {"targets": ["main/well"]}}})
        assert gateway.reload()["event"] == "reloaded"
        assert chat(gateway, "both").status == 200
        assert chat(gateway, "first").status == 404
        assert keys_seen(mock, "well") == ["OLD0", "NEW0"]
        assert not any(stream.done() for stream in streams), "they were to run while it was read"
        assert all(is_complete(stream.result(), streamed=True) for stream in streams)
        entries = gateway.check_books()
    assert set(keys_seen(mock, "steady")) == {"OLD0"}
    assert Counter((entry.end, entry.generation) for entry in entries) == {
        (EndState.SUCCESS, 1): 9,
        (EndState.SUCCESS, 2): 1,
    }


def test_f40_reloads_under_load_fail_nobody(
    mock: MockProcess, other_mock: MockProcess, tmp_path: Path
) -> None:
    """Each time the provider is another server with another key, and some come and go; 25 times."""
    settings: dict[str, Any] = {"models": {"brief": {"targets": ["main/brief"]}}}
    servers = (mock.base_url, other_mock.base_url)

    def write(turn: int) -> None:
        main = {"base_url": servers[turn % 2], "api_keys": [f"sk-0123456789-{turn:04}"]}
        guest = {"base_url": servers[turn % 3 % 2], "limits": {"concurrency": 1 + turn}}
        providers = {"main": main} | ({f"guest-{turn}": guest} if turn % 4 else {})
        gateway.write({"providers": providers, **settings})

    is_over = threading.Event()

    answers: list[bool] = []

    def client(number: int) -> None:
        while not is_over.is_set():
            streamed = number % 2 == 0
            answers.append(is_complete(chat(gateway, "brief", streamed=streamed), streamed=streamed))

    gateway = GatewayProcess(tmp_path, {"providers": {"main": {"base_url": mock.base_url}}, **settings})
    with gateway, ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        try:
            for turn in range(25):
                write(turn)
                assert gateway.reload()["event"] == "reloaded"
                # As many as run at one time: the last of them began after the reload.
                until(partial(are_more, answers, len(answers) + 8), what="calls between the reloads")
        finally:
            is_over.set()
        for one in clients:
            one.result()
        assert all(answers) and len(answers) >= 25 * 8, Counter(answers)
        entries = gateway.check_books()
    assert {entry.end for entry in entries} == {EndState.SUCCESS}
    assert len({entry.generation for entry in entries}) > 20


# F35: the process stands still.


def test_f35_after_a_stop_nothing_is_begun_too_late_and_nothing_twice(
    mock: MockProcess, tmp_path: Path
) -> None:
    """What waits for a place, a retry or an answer for too long is ended; what has time goes on, once."""
    settings = {
        "providers": {
            "narrow": {"base_url": mock.base_url, "limits": {"concurrency": 2}},
            "free": {"base_url": mock.base_url},
        }
    }

    def limit(ms: int) -> tuple[str, str]:
        return "x-tiergate-deadline-ms", str(ms)

    with GatewayProcess(tmp_path, settings) as gateway, ThreadPoolExecutor(20) as pool:
        both, before = (False, True), len(calls_of(mock, "steady"))
        patient = [pool.submit(chat, gateway, "narrow/busy", streamed=flag) for flag in both]
        came(mock, "busy", 2)
        waiting = [pool.submit(chat, gateway, "narrow/busy-next", limit(3_200)) for _ in range(2)]
        hasty = [pool.submit(chat, gateway, "free/late", limit(1_500), streamed=flag) for flag in both]
        steady = [pool.submit(chat, gateway, "free/steady", streamed=True) for _ in range(4)]
        came(mock, "steady", before + 4)
        came(mock, "late", 2)
        until(lambda: waiting_at(gateway, "narrow") == 2, what="two that wait")
        retried = [pool.submit(chat, gateway, f"free/peace-{n}", limit(1_900)) for n in range(4)]
        for n in range(4):
            came(mock, f"peace-{n}", 1)
        gateway.signal(signal.SIGSTOP)
        time.sleep(2)  # the one thing here that is about real time: the process stands still meanwhile
        gateway.signal(signal.SIGCONT)
        assert [answer.result().status for answer in waiting] == [429, 429]
        assert [answer.result().status for answer in hasty] == [504, 504]
        assert {answer.result().status for answer in retried} <= {429, 504}
        for streamed, answer in zip(both, patient, strict=True):
            assert is_complete(answer.result(), streamed=streamed)
        assert all(is_complete(answer.result(), streamed=True) for answer in steady)
        assert chat(gateway, "narrow/after").status == 200
        gateway.check_books()
    counts = {name: len(calls_of(mock, name)) for name in ("busy", "busy-next", "late", "after")}
    assert counts == {"busy": 2, "busy-next": 0, "late": 2, "after": 1}
    assert [len(calls_of(mock, f"peace-{n}")) for n in range(4)] == [1] * 4
    assert len(calls_of(mock, "steady")) == before + 4


# F36: stopping.


@pytest.mark.parametrize("how", ["the drain is over", "a second signal"])
def test_f36_of_fifty_streams_none_is_cut_silently(mock: MockProcess, tmp_path: Path, how: str) -> None:
    """Readiness goes first; half of them end complete, the others are told; each has its row."""
    drain_s = 2.0 if how == "the drain is over" else 60.0
    settings = {"providers": {"main": {"base_url": mock.base_url}}}
    gateway = GatewayProcess(tmp_path, settings, drain_s=drain_s, grace_s=0.4)
    quick, endless = len(calls_of(mock, "quick")), len(calls_of(mock, "endless"))
    with gateway, ThreadPoolExecutor(50) as pool:
        brief = [pool.submit(chat, gateway, "main/quick", streamed=True) for _ in range(25)]
        long = [pool.submit(chat, gateway, "main/endless", streamed=True) for _ in range(25)]
        came(mock, "quick", quick + 25)
        came(mock, "endless", endless + 25)
        gateway.signal(signal.SIGTERM)
        until(lambda: ask(gateway.port, "/health/ready").status == 503, what="not ready")
        assert not any(stream.done() for stream in [*brief, *long]), "readiness was to go first"
        assert all(is_complete(stream.result(), streamed=True) for stream in brief)
        if how == "a second signal":
            assert not any(stream.done() for stream in long)
            gateway.signal(signal.SIGTERM)
        for stream in long:
            answer = stream.result()
            assert "[DONE]" not in answer.events and not answer.whole
            assert '"code":"shutting_down"' in answer.events[-1].replace(" ", "")
        until(gateway.has_ended, timeout_s=5, what="its end")
        entries = gateway.check_books()
    assert Counter((entry.end, entry.error_code) for entry in entries) == {
        (EndState.SUCCESS, None): 25,
        (EndState.INTERRUPTED, "shutting_down"): 25,
    }


# I8, I11.


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_i8_every_call_ends_soon_after_its_deadline(
    mock: MockProcess, tmp_path: Path, *, streamed: bool
) -> None:
    """Whatever its target does, and however often it would be tried again; nothing is left of it."""
    names = ("hangs", "stalls", "drips", "slow-head", "fails", "throttles", "late", "endless")
    settings = {
        "providers": {
            "main": {"base_url": mock.base_url},
            "full": {"base_url": mock.base_url, "limits": {"concurrency": 1}},
        },
        "resilience": {"attempts": 5, "breaker": {"enabled": False}},
    }
    deadline_s = 1.0

    def ended_after(model: str) -> float:
        began = time.monotonic()
        answer = chat(
            gateway, model, ("x-tiergate-deadline-ms", f"{deadline_s * 1e3:.0f}"), streamed=streamed
        )
        assert not (answer.status == 200 and "[DONE]" in answer.events)
        return time.monotonic() - began

    with GatewayProcess(tmp_path, settings) as gateway, ThreadPoolExecutor(40) as pool:
        models = [f"main/{name}" for name in names for _ in range(2)] + ["full/hangs"] * 4
        # The invariant allows a second after the deadline, and this machine may be busy.
        assert max(pool.map(ended_after, models)) < deadline_s + 1 + 1
        until(lambda: is_quiet(gateway), what="silence")
        gateway.check_books()


def test_i11_after_a_fault_everything_is_back(mock: MockProcess, tmp_path: Path) -> None:
    """Good answers again, and no more descriptors, places, waiting calls or holds than before."""
    written = {
        "providers": {"main": {"base_url": mock.base_url, "api_keys": ["sk-0123456789-ILL0"]}},
        "resilience": {"first_event_s": 0.4, "idle_s": 0.4, "breaker": {"open_s": 0.2}},
    }
    with GatewayProcess(tmp_path, written) as gateway, ThreadPoolExecutor(30) as pool:

        def many(models: tuple[str, ...], count: int, ask_one: Callable[[str], Any]) -> list[Any]:
            return list(pool.map(ask_one, [f"main/{models[n % len(models)]}" for n in range(count)]))

        def well(model: str) -> bool:
            return is_complete(chat(gateway, model), streamed=False)

        def ill(model: str) -> None:
            deadline = ("x-tiergate-deadline-ms", "900")
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
            assert not is_complete(chat(gateway, model, deadline), streamed=False)
            with asking(gateway.port, "/v1/chat/completions", body, headers=[deadline]) as connection:
                connection.read_some()  # and leave in the middle

        assert all(many(("well",), 60, well))
        until(lambda: is_quiet(gateway), what="silence")
        baseline = gateway.descriptors
        many(ILL, 120, ill)
        healed = {"main": {"base_url": mock.base_url, "api_keys": ["sk-0123456789-WELL"]}}
        gateway.write({**written, "providers": healed})
        assert gateway.reload()["event"] == "reloaded"
        for name in ILL:
            for what in ("a good probe", "another one"):
                until(partial(well, f"main/{name}"), what=f"{what} of {name}")
        answers = Counter(many(ILL, 200, well))
        assert answers[True] >= 198, answers
        until(lambda: is_quiet(gateway), what="silence")
        # An idle connection to a provider is kept for 15 seconds.
        few = partial(has_few_descriptors, gateway, baseline + 2)
        until(few, timeout_s=30, what=f"{baseline} descriptors")
        gateway.check_books()


def are_more(answers: list[bool], than: int) -> bool:
    return len(answers) > than


def has_few_descriptors(gateway: GatewayProcess, most: int) -> bool:
    return gateway.descriptors <= most


def places(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return list(admin(gateway, "/api/targets").json["data"])


def waiting_at(gateway: GatewayProcess, provider: str) -> int:
    return sum(row["waiting"] for row in places(gateway) if row["provider"] == provider)


def is_quiet(gateway: GatewayProcess) -> bool:
    """Tell whether nothing is in flight or waits anywhere."""
    return not any(row["in_flight"] or row["waiting"] for row in places(gateway))

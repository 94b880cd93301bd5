"""`tiergate.Gateway` in a program: alone, and through a gateway that runs already."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import uvloop

from house import GatewayProcess, calls_of
from tiergate import Gateway
from tiergate.app.client import GatewayError
from tiergate.app.house import read_ledger
from tiergate.core import (
    EndState,
    InvalidRequest,
    ModelNotFound,
    SettingsError,
    TiergateError,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
)
from tiergate.testing import MockProcess

QUESTION = [{"role": "user", "content": "What is a lease?"}]

Main = Callable[[Gateway], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    rules = [
        {"when": {"model": "fails"}, "then": {"status": 500}},
        {"when": {"model": "rejects"}, "then": {"status": 400, "error": "Too hot."}},
        {"when": {"model": "cut"}, "then": {"clean_cut_after": 4}},
        {"when": {"model": "slow"}, "then": {"words": 500, "tokens_per_s": 20}},
    ]
    with MockProcess(json.dumps({"default": {"words": 9}, "rules": rules})) as process:
        yield process


def settings_for(mock: MockProcess) -> dict[str, Any]:
    return {
        "providers": {"main": {"base_url": mock.base_url, "api_keys": ["sk-provider-0123456789-MAIN"]}},
        "models": {"good": {"targets": ["main/fails", "main/good"]}},
        "prices": [{"target": "main/good", "usd_per_1m": {"input": 1, "output": 2}}],
    }


@pytest.fixture(scope="module")
def running(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = settings_for(mock) | {
        "auth": "keys",
        "keys": [{"name": "web", "secret": "web-key-0123456789abcdef"}],
    }
    with GatewayProcess(tmp_path_factory.mktemp("running"), settings) as process:
        yield process
        process.check_books()


@pytest.fixture(params=["alone", "through a running gateway"])
def settings_file(
    request: pytest.FixtureRequest, mock: MockProcess, running: GatewayProcess, tmp_path: Path
) -> Path:
    if request.param != "alone":
        return running.settings_file
    path = tmp_path / "tiergate.yaml"
    path.write_text(json.dumps(settings_for(mock) | {"data_dir": str(tmp_path / "data")}))
    return path


def run(settings_file: Path, main: Main) -> None:
    """Run a program with a gateway, at most 15 seconds."""

    async def guarded() -> None:
        async with asyncio.timeout(15), Gateway.from_config(settings_file) as gateway:
            await main(gateway)

    uvloop.run(guarded())


def test_chat(settings_file: Path) -> None:
    """A reply with text, usage, cost, target and tier, after a failover."""

    async def main(gateway: Gateway) -> None:
        reply = await gateway.chat(QUESTION, model="good", max_tokens=5, temperature=0)
        assert len(reply.text.split()) == 5
        assert (reply.target, reply.tier) == ("main/good", "hosted")
        assert reply.origin.attempts == 2
        assert reply.finish == ("length",)
        assert reply.usage.output_tokens == 5
        assert reply.cost_usd == Decimal(reply.usage.input_tokens + 10) / 1_000_000
        assert json.loads(reply.data)["choices"][0]["message"]["content"] == reply.text

    run(settings_file, main)


def test_stream(settings_file: Path) -> None:
    """Pieces as they arrive; together they are the whole answer, and the last ones tell usage and end."""

    async def main(gateway: Gateway) -> None:
        whole = await gateway.chat(QUESTION, model="good")
        pieces = [piece async for piece in gateway.stream(QUESTION, model="good")]
        assert "".join(piece.text for piece in pieces) == whole.text
        assert len([piece for piece in pieces if piece.text]) == 9
        assert [piece.finish for piece in pieces if piece.finish] == [("stop",)]

    run(settings_file, main)


def test_the_cache(settings_file: Path, mock: MockProcess) -> None:
    """The same through both doors: a hit, what it says of itself, and a caller that does not want it."""

    async def main(gateway: Gateway) -> None:
        question = [{"role": "user", "content": f"cached {settings_file}"}]
        replies = [
            await gateway.chat(question, model="main/good", temperature=0, cache_control=control)
            for control in (None, None, "no-cache")
        ]
        said = [reply.origin.cache for reply in replies]
        assert [one.outcome for one in said if one is not None] == ["miss", "hit", "request"]
        assert [reply.tier for reply in replies] == ["hosted", "cache", "hosted"]
        assert replies[1].text == replies[0].text and replies[1].cost_usd == 0
        with pytest.raises(TiergateError) as refused:
            await gateway.chat(QUESTION, model="main/good", seed=9, cache_control="only-if-cached")
        assert refused.value.code == "not_cached"
        pieces = [piece async for piece in gateway.stream(question, model="main/good", temperature=0)]
        assert "".join(piece.text for piece in pieces) == replies[2].text

    run(settings_file, main)


def test_several_at_once(settings_file: Path, mock: MockProcess) -> None:
    """One gateway object serves many calls at the same time."""

    async def main(gateway: Gateway) -> None:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(gateway.chat([{"role": "user", "content": str(n)}], model="main/good"))
                for n in range(20)
            ]
        again = await gateway.chat([{"role": "user", "content": "7"}], model="main/good")
        assert asked[7].result().text == again.text
        assert len({task.result().origin.call_id for task in asked}) == 20

    run(settings_file, main)


async def freed(mock: MockProcess, before: int) -> None:
    """Wait until the last call of `slow` was aborted; at most a second."""
    async with asyncio.timeout(1):
        while calls_of(mock, "slow")[before]["ended"] != "aborted":
            await asyncio.sleep(0.02)


def test_leaving_a_stream_early_frees_the_provider(settings_file: Path, mock: MockProcess) -> None:
    """After `break` nobody waits: the provider is freed within a second, though the gateway stays open."""

    async def main(gateway: Gateway) -> None:
        before = len(calls_of(mock, "slow"))
        async for piece in gateway.stream(QUESTION, model="main/slow"):
            if piece.text:
                break
        await freed(mock, before)

    run(settings_file, main)


def test_closing_a_stream_frees_the_provider_at_once(settings_file: Path, mock: MockProcess) -> None:
    """`aclosing` frees it even while the stream is still held in a variable."""

    async def main(gateway: Gateway) -> None:
        before = len(calls_of(mock, "slow"))
        stream = gateway.stream(QUESTION, model="main/slow")
        async with contextlib.aclosing(stream):
            await anext(stream)
        await freed(mock, before)

    run(settings_file, main)


def test_cancelling_a_call_frees_the_provider(settings_file: Path, mock: MockProcess) -> None:
    """A task that is cancelled while it waits, whole or streamed, frees the provider."""

    async def consume(stream: AsyncIterator[Any]) -> None:
        async for _ in stream:
            pass

    async def main(gateway: Gateway) -> None:
        for work in (
            lambda: gateway.chat(QUESTION, model="main/slow"),
            lambda: consume(gateway.stream(QUESTION, model="main/slow")),
        ):
            before = len(calls_of(mock, "slow"))
            task = asyncio.create_task(work())
            while len(calls_of(mock, "slow")) == before:
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await freed(mock, before)

    run(settings_file, main)


def test_errors_are_exceptions(settings_file: Path) -> None:
    """What fails raises one family, with a sentence to act on and a stable code."""

    async def main(gateway: Gateway) -> None:
        for model, code, words in (
            ("gone", "model_not_found", "good"),
            ("main/fails", "upstream_fault", "main failed on its own side (500)"),
            ("main/rejects", "invalid_request", "Too hot."),
        ):
            with pytest.raises(TiergateError) as raised:
                await gateway.chat(QUESTION, model=model)
            assert raised.value.code == code
            assert words in str(raised.value)
            with pytest.raises(TiergateError) as raised:
                async for _ in gateway.stream(QUESTION, model=model):
                    pass
            assert raised.value.code == code
        with pytest.raises(TiergateError, match="max_tokens"):
            await gateway.chat(QUESTION, model="good", max_tokens=0)
        with pytest.raises(TiergateError, match="complete"):
            async for _ in gateway.stream(QUESTION, model="main/cut"):
                pass

    run(settings_file, main)


def test_errors_alone_are_of_the_tree(mock: MockProcess, tmp_path: Path) -> None:
    """Where the call is served in the program itself, each error has its own class."""
    path = tmp_path / "tiergate.yaml"
    path.write_text(json.dumps(settings_for(mock) | {"data_dir": str(tmp_path / "data")}))

    async def main(gateway: Gateway) -> None:
        with pytest.raises(ModelNotFound):
            await gateway.chat(QUESTION, model="gone")
        with pytest.raises(UpstreamFault) as raised:
            await gateway.chat(QUESTION, model="main/fails")
        assert (raised.value.target, raised.value.status) == ("main/fails", 500)
        with pytest.raises(InvalidRequest) as refused:
            await gateway.chat([], model="good")
        assert refused.value.param == "messages"
        with pytest.raises(UpstreamInterrupted):
            async for _ in gateway.stream(QUESTION, model="main/cut"):
                pass

    run(path, main)

    async def read() -> list[Any]:
        return [entry async for entry in read_ledger(tmp_path / "data")]

    entries = asyncio.run(read())
    assert [(entry.asked_model, entry.end) for entry in entries] == [
        ("main/fails", EndState.FAILED),
        ("main/cut", EndState.INTERRUPTED),
    ]


def test_running_gateway_does_the_work(running: GatewayProcess, mock: MockProcess) -> None:
    """With an owner in place the call is its call: in its log, under its rules, and in its ledger."""

    async def main(gateway: Gateway) -> None:
        reply = await gateway.chat(QUESTION, model="main/owner-does-it")
        assert running.log_of(reply.origin.call_id)["key"] == "local"
        with pytest.raises(GatewayError) as raised:
            await gateway.chat(QUESTION, model="main/fails")
        assert raised.value.status == 502

    run(running.settings_file, main)
    assert len(calls_of(mock, "owner-does-it")) == 1


def test_owner_that_goes_away(mock: MockProcess, tmp_path: Path) -> None:
    """When the running gateway ends in between, the next call says so; a new object serves itself."""
    with GatewayProcess(tmp_path, settings_for(mock)) as process:

        async def main(gateway: Gateway) -> None:
            await gateway.chat(QUESTION, model="main/good")
            await asyncio.to_thread(process.stop)
            with pytest.raises(UpstreamError, match="the gateway"):
                await gateway.chat(QUESTION, model="main/good")

        run(process.settings_file, main)

        async def again(gateway: Gateway) -> None:
            assert (await gateway.chat(QUESTION, model="main/good")).text

        run(process.settings_file, again)


def test_use_outside_of_its_block(settings_file: Path) -> None:
    """A gateway that is not open says how it is used; wrong settings say so before anything opens."""

    async def main() -> None:
        gateway = Gateway.from_config(settings_file)
        with pytest.raises(RuntimeError, match="async with"):
            await gateway.chat(QUESTION, model="good")

    asyncio.run(main())
    with pytest.raises(SettingsError, match="no such file"):
        Gateway.from_config(settings_file.with_name("none.yaml"))


def test_nothing_is_left_behind(mock: MockProcess, tmp_path: Path) -> None:
    """After the block no task runs, nobody owns the folder, and a second block works."""
    path = tmp_path / "tiergate.yaml"
    path.write_text(json.dumps(settings_for(mock) | {"data_dir": str(tmp_path / "data")}))

    async def main() -> None:
        for _ in range(2):
            async with Gateway.from_config(path) as gateway:
                async for piece in gateway.stream(QUESTION, model="main/slow"):
                    if piece.text:
                        break
            gc.collect()
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not (tmp_path / "data" / "owner.json").exists()

    asyncio.run(main())

    async def read() -> list[Any]:
        return [entry async for entry in read_ledger(tmp_path / "data")]

    assert [entry.end for entry in asyncio.run(read())] == [EndState.CLIENT_CLOSED] * 2


def test_a_stream_that_is_held_open_past_the_block_is_in_the_books(mock: MockProcess, tmp_path: Path) -> None:
    """Leaving the block ends it for the books as well, though somebody still holds it in a variable."""
    path = tmp_path / "tiergate.yaml"
    path.write_text(json.dumps(settings_for(mock) | {"data_dir": str(tmp_path / "data")}))

    async def main() -> None:
        async with Gateway.from_config(path) as gateway:
            stream = gateway.stream(QUESTION, model="main/slow")
            await anext(stream)
        await stream.aclose()

    asyncio.run(main())

    async def read() -> list[Any]:
        return [entry async for entry in read_ledger(tmp_path / "data")]

    (entry,) = asyncio.run(read())
    assert entry.end is EndState.CLIENT_CLOSED
    assert [attempt.state.value for attempt in entry.attempts] == ["settled"]

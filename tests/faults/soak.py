"""A gateway under mixed faults for as long as one likes, and what has to hold all the time and afterwards.

The faults are those of a provider in one call of four, of a server that stands still now and then, of a Redis
that dies and freezes, of settings that are read again every few seconds, and of callers that leave.
"""

import asyncio
import os
import re
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import openai
import yaml
from openai import AsyncOpenAI

from admin import admin
from flow.plain_http import request
from house import GatewayProcess
from redis_server import RedisServer
from tiergate.testing import MockProcess

CANARY: Final = "canary-of-a-question"
KEY, POOR_KEY = "sk-of-ci-0123456789abcdef", "sk-of-poor-0123456789abcdef"
ILL, WELL = "sk-provider-0123456789-ILL", "sk-provider-0123456789-WELL"
DEADLINE_S: Final = 5.0
CALLERS: Final = 24
_LIMITS: Final = {"rpm": 1_000_000, "tpm": 1_000_000_000, "concurrency": 200}
_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"status": 503},
    {"status": 500},
    {"status": 400, "error": "Too hot."},
    {"status": 429, "headers": {"retry-after-ms": 300}},
    {"status": 529},
    {"html": True},
    {"empty": True},
    {"refuse": True},
    {"hang": True},
    {"garbage": 300},
    {"slow_headers_ms": 3_000},
    {"trickle_ms": 20},
    {"stall_after": 2},
    {"reset_after": 2},
    {"clean_cut_after": 2},
    {"error_in_stream": 2},
    {"truncate_json": True},
    {"cut_character": True},
    {"wrong_length": 7},
    {"redirect": "http://127.0.0.1:9/"},
    {"encode": "gzip", "padding_bytes": 200_000_000},
    {"flood_bytes": 3_000_000, "one_byte_chunks": True},
)
_FAULTY_SHARE: Final = 0.25
_MODELS: Final = ("alone", "second", "rack", "well")


def script() -> str:
    """Write the script of every provider: faults only for the key that is ill."""
    share = _FAULTY_SHARE / len(_FAULTS)
    when = {"header": {"authorization": "*ILL"}, "probability": share}
    rules = [{"when": when, "then": fault} for fault in _FAULTS]
    default = {"echo": True, "ttft_ms": 20, "tokens_per_s": 200}
    return yaml.safe_dump({"seed": 11, "default": default, "rules": rules})


@dataclass
class Figures:
    """What was seen. Times in seconds, memory in MiB."""

    lasted_s: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    latest_s: float = 0.0
    """By how much a call outlasted its deadline at most."""
    most_charged: float = 0.0
    """Of the small budget: what was spent and held of it at most, as a share."""
    reloads: int = 0
    good_after: int = 0
    asked_after: int = 0
    memory_before: float = 0.0
    memory_after: float = 0.0
    delays: dict[str, int] = field(default_factory=dict)
    """Delays of the event loop up to each bound, in all."""

    @property
    def calls(self) -> int:
        """How many there were."""
        return sum(self.ends.values())

    def delay_within(self, bound: str) -> float:
        """Tell which share of the delays is within a bound of the histogram."""
        return self.delays[bound] / max(1, self.delays["+Inf"])

    def delay_bound(self, share: float) -> str:
        """Give the lowest bound within which this share of the delays is."""
        return next(bound for bound in self.delays if self.delay_within(bound) >= share)


class Soak:
    """One gateway, three providers and a Redis, for a time.

    Args:
        folder: of the gateway.
        redis: a server that runs.
        seed: of everything that is drawn here.
    """

    def __init__(self, folder: Path, redis: RedisServer, *, seed: int = 1) -> None:
        self._folder = folder
        self._redis = redis
        self._random = Random(seed)
        self.figures = Figures()
        self.wrong: list[str] = []
        """What must not be."""

    async def run(self, seconds: float) -> None:
        """Let it go on for so long, heal it, and look."""
        texts = [script()] * 3
        mocks = [MockProcess(text) for text in texts]
        for mock in mocks:
            mock.start()
        self._shaky, self._steady, self._rack = mocks
        self._gateway = GatewayProcess(self._folder, self._settings(ILL))
        try:
            with self._gateway:
                await self._live(seconds)
                self._check_words()
                for mock in mocks:
                    mock.close()
                await self._has_calmed_down()
                entries = await asyncio.to_thread(self._gateway.check_books)
        finally:
            for mock in mocks:
                mock.close()
        self._check(max(len(entry.attempts) for entry in entries) <= 3, "a call had more than three attempts")

    async def _live(self, seconds: float) -> None:
        async with self._client(KEY) as client:
            await asyncio.gather(*(self._call(client, "well", streamed=False) for _ in range(40)))
        self.figures.ends.clear()
        await asyncio.sleep(0.5)
        self._descriptors, self.figures.memory_before = self._gateway.descriptors, self._memory()
        began = time.monotonic()
        ends = began + seconds
        trouble = [
            asyncio.create_task(self._again(seconds, every_s, work))
            for every_s, work in (
                (0.5, self._look_at_budget),
                (7.0, self._reload),
                (11.0, self._hurt_redis),
                (13.0, self._stop_rack),
            )
        ]
        async with self._client(KEY) as client, self._client(POOR_KEY) as poor:
            await asyncio.gather(*(self._caller(client, poor, ends) for _ in range(CALLERS)))
        for task in trouble:
            task.cancel()
        await asyncio.gather(*trouble, return_exceptions=True)
        self.figures.lasted_s = time.monotonic() - began
        self.figures.delays = self._delays()
        await self._heal()

    def _settings(self, key: str, *, guest: bool = False) -> dict[str, Any]:
        shaky = {"base_url": self._shaky.base_url, "api_keys": [key], "limits": _LIMITS}
        steady = {"base_url": self._steady.base_url, "api_keys": [WELL]}
        rack = {"base_url": self._rack.base_url, "tier": "private", "limits": {"concurrency": 64}}
        price = {"usd_per_1m": {"input": 1, "output": 2}}
        return {
            "auth": "keys",
            "keys": [
                {"name": "ci", "secret": KEY, "limits": _LIMITS},
                {"name": "poor", "secret": POOR_KEY},
            ],
            "providers": {"shaky": shaky, "steady": steady, "rack": rack}
            | ({"guest": steady} if guest else {}),
            "models": {
                "alone": {"targets": ["shaky/m"]},
                "second": {"targets": ["shaky/m", "steady/m"]},
                "rack": {"targets": ["rack/m", "steady/m"]},
                "well": {"targets": ["steady/m"]},
            },
            "prices": [{"target": f"{name}/m", **price} for name in ("shaky", "steady", "rack")],
            "budgets": [
                {"scope": "all", "usd": 1_000, "per": "total"},
                {"scope": "key:poor", "usd": 0.005, "per": "total"},
            ],
            "resilience": {"first_event_s": 1, "idle_s": 1, "breaker": {"open_s": 1}},
            "redis": self._redis.url,
            "secret": "0123456789abcdef0123456789abcdef",
        }

    @asynccontextmanager
    async def _client(self, key: str) -> AsyncIterator[AsyncOpenAI]:
        async with AsyncOpenAI(
            base_url=self._gateway.base_url, api_key=key, max_retries=0, timeout=60
        ) as made:
            yield made

    # Those who call.

    async def _caller(self, client: AsyncOpenAI, poor: AsyncOpenAI, ends: float) -> None:
        """Make one call after the other, of any kind."""
        while time.monotonic() < ends:
            kind, streamed = self._random.random(), self._random.random() < 0.5
            model = self._random.choice(_MODELS)
            if kind < 0.15:
                await self._leave(model, streamed=streamed)
            elif kind < 0.2:
                await self._call(poor, "second", streamed=streamed)
            elif kind < 0.3:
                await self._call(client, model, streamed=streamed, deadline_s=0.3 + self._random.random())
            else:
                await self._call(client, model, streamed=streamed)

    async def _call(
        self, client: AsyncOpenAI, model: str, *, streamed: bool, deadline_s: float = DEADLINE_S
    ) -> bool:
        """Make one call to its end; an answer that claims to be complete is the question's own words."""
        words = self._random.randrange(3, 20)
        text = f"{CANARY} {self._random.randrange(1 << 40)} " + "word " * words
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text.strip()}]}
        asked["max_tokens"] = 40
        asked["extra_headers"] = {"x-tiergate-deadline-ms": str(int(deadline_s * 1e3))}
        began = time.monotonic()
        try:
            answer = await (self._streamed(client, asked) if streamed else self._whole(client, asked))
            end = "good"
            self._check(answer.strip() == text.strip(), f"a complete answer is another one: {answer[:200]!r}")
        except openai.APIStatusError as error:
            end = f"{error.status_code} {error.code}"
            self._check(error.code != "internal_error", f"an error of ours: {error}")
        except openai.APIError as error:
            end = f"broken off, {error.code or type(error).__name__}"
        self.figures.ends[end] += 1
        self.figures.latest_s = max(self.figures.latest_s, time.monotonic() - began - deadline_s)
        return end == "good"

    async def _whole(self, client: AsyncOpenAI, asked: dict[str, Any]) -> str:
        reply = await client.chat.completions.create(**asked)
        return reply.choices[0].message.content or ""

    async def _streamed(self, client: AsyncOpenAI, asked: dict[str, Any]) -> str:
        pieces, reason = [], None
        async with await client.chat.completions.create(**asked, stream=True) as stream:
            async for chunk in stream:
                for choice in chunk.choices:
                    pieces.append(choice.delta.content or "")
                    reason = choice.finish_reason or reason
        self._check(reason is not None, "a stream ended in silence, without a finish reason")
        return "".join(pieces)

    async def _leave(self, model: str, *, streamed: bool) -> None:
        """Ask, and hang up somewhere."""
        body = {"model": model, "messages": [{"role": "user", "content": f"{CANARY} x"}], "stream": streamed}
        body["max_tokens"] = 40
        wire = request("/v1/chat/completions", body, headers=[("authorization", f"Bearer {KEY}")])
        reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        with suppress(OSError, TimeoutError):
            writer.write(wire[: self._random.choice([len(wire), self._random.randrange(len(wire))])])
            async with asyncio.timeout(self._random.random()):
                await reader.read(self._random.randrange(1, 600))
        if self._random.random() < 0.5:
            rudely = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, rudely)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self.figures.ends["left"] += 1

    # What goes wrong meanwhile.

    async def _again(self, seconds: float, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() + every_s / 2 < ends:
            await asyncio.sleep(min(every_s, seconds / 4))
            await work()

    async def _reload(self) -> None:
        self.figures.reloads += 1
        self._gateway.write(self._settings(ILL, guest=self.figures.reloads % 2 == 1))
        told = await asyncio.to_thread(self._gateway.reload)
        self._check(told["event"] == "reloaded", f"good settings were refused: {told}")

    async def _hurt_redis(self) -> None:
        if self._random.random() < 0.5:
            self._redis.stop()
            await asyncio.sleep(1.5)
            await asyncio.to_thread(self._redis.start)
        else:
            self._redis.freeze()
            await asyncio.sleep(1.5)
            self._redis.thaw()

    async def _stop_rack(self) -> None:
        os.kill(self._rack.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(2)
        finally:
            os.kill(self._rack.pid, signal.SIGCONT)

    async def _look_at_budget(self) -> None:
        rows = (await asyncio.to_thread(admin, self._gateway, "/api/budgets")).json["data"]
        (row,) = (row for row in rows if row["scope"] == "key:poor")
        charged = (row["spent_usd"] + row["held_usd"]) / row["usd"]
        self.figures.most_charged = max(self.figures.most_charged, charged)
        self._check(charged <= 1, f"the small budget is charged with {charged:.3f} of what it has")

    # Afterwards.

    async def _heal(self) -> None:
        """Take every fault away, wait as long as a breaker may be open, and ask again."""
        self._gateway.write(self._settings(WELL))
        await asyncio.to_thread(self._gateway.reload)
        async with self._client(KEY) as client:
            ends = time.monotonic() + 30
            for model in _MODELS:
                while not await self._call(client, model, streamed=False) and time.monotonic() < ends:
                    await asyncio.sleep(0.3)
            self.figures.asked_after = 400
            for _ in range(20):
                calls = (
                    self._call(client, model, streamed=n % 2 == 0) for n in range(5) for model in _MODELS
                )
                self.figures.good_after += sum(await asyncio.gather(*calls))

    async def _has_calmed_down(self) -> None:
        """Wait until nothing is in flight, held or open that was not before."""
        ends = time.monotonic() + 20
        while (rest := await asyncio.to_thread(self._rest)) and time.monotonic() < ends:
            await asyncio.sleep(0.2)
        self._check(not rest, f"something is left: {rest}")
        self.figures.memory_after = self._memory()

    def _rest(self) -> str:
        rows = admin(self._gateway, "/api/targets").json["data"]
        busy = [row["provider"] for row in rows if row["in_flight"] or row["waiting"]]
        held = [row["scope"] for row in admin(self._gateway, "/api/budgets").json["data"] if row["held_usd"]]
        more = self._gateway.descriptors - self._descriptors
        found = {"in flight at": busy, "held of": held, "descriptors": max(0, more - 2)}
        return ", ".join(f"{what} {value}" for what, value in found.items() if value)

    def _check_words(self) -> None:
        """See that nothing of a question and no key has come into the log or the metrics."""
        told = self._gateway.stderr + admin(self._gateway, "/metrics").body.decode()
        for secret in (CANARY, KEY, POOR_KEY, ILL, WELL):
            self._check(secret not in told, f"{secret[:6]}… is in the log or the metrics")

    def _delays(self) -> dict[str, int]:
        page = admin(self._gateway, "/metrics").body.decode()
        found = re.findall(
            r'^tiergate_loop_delay_seconds_bucket\{le="([^"]+)"\} ([0-9.]+)', page, re.MULTILINE
        )
        return {bound: int(float(count)) for bound, count in found}

    def _memory(self) -> float:
        """Give the memory of the gateway in MiB."""
        status = Path(f"/proc/{self._gateway.pid}/status").read_text()
        (kib,) = re.findall(r"^VmRSS:\s+([0-9]+) kB", status, re.MULTILINE)
        return int(kib) / 1024

    def _check(self, holds: bool, what: str) -> None:
        if not holds and len(self.wrong) < 20:
            self.wrong.append(what)

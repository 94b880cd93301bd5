"""Measures a batch while its provider refuses nine of ten requests for three minutes, and how it comes back.

The provider is one of this script's own: it answers after 50 ms, takes a true limit of requests a second, and says
nothing of it but 429. A batch runs for a while, then nine of ten requests are refused, whatever the rate, and then
the true limit is all that is left again.

    make bench-throttled
"""

import argparse
import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2 as httpx
from aiohttp import web

from batch import line
from outage import ROOT, served
from page import write_part

SETTLED_S = 20
AFTER_S = 60
ANSWER_S = 0.05
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Good."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 90, "completion_tokens": 2, "total_tokens": 92},
}
REFUSAL = {"error": {"message": "Too many requests.", "type": "requests", "code": "rate_limit_exceeded"}}


@dataclass
class Provider:
    """Takes `limit` requests a second, with a second's worth at one time; counts answers by the second."""

    limit: float
    refused_from_s: float
    refused_to_s: float
    good: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    began: float = 0.0
    """When the first request came; 0: none has."""
    level: float = 0.0
    looked: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        await request.read()
        now = time.monotonic()
        if not self.began:
            self.began = self.looked = now
        at_s = now - self.began
        self.level = min(self.limit, self.level + (now - self.looked) * self.limit)
        self.looked = now
        is_phase = self.refused_from_s <= at_s < self.refused_to_s
        if (is_phase and random.random() < 0.9) or self.level < 1:
            self.refused[int(at_s)] += 1
            return web.json_response(REFUSAL, status=429)
        self.level -= 1
        await asyncio.sleep(ANSWER_S)
        self.good[int(at_s)] += 1
        return web.json_response(REPLY)

    def per_s(self, counter: Counter[int], first: float, last: float) -> float:
        """Give the mean of a second between two moments."""
        return sum(counter[second] for second in range(int(first), int(last))) / (last - first)


def serve(provider: Provider) -> int:
    """Serve it in a thread that ends with this process; give its port."""
    ports: list[int] = []
    ready = threading.Event()

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", provider.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    ready.wait()
    return ports[0]


def watch(url: str, lines: int, until_s: float, provider: Provider) -> list[tuple[float, str, str]]:
    """Run a batch until a moment; give what its state was, and why, whenever that changed."""
    seen: list[tuple[float, str, str]] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        data = b"".join(line(n).replace(b'"m"', b'"main/m"') for n in range(1, lines + 1))
        sent = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", data)})
        wish = {
            "input_file_id": sent.raise_for_status().json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "tiergate": {"concurrency": 200},
        }
        place = f"/v1/batches/{client.post('/v1/batches', json=wish).raise_for_status().json()['id']}"
        while not provider.began or time.monotonic() - provider.began < until_s:
            ours = client.get(place).json()["tiergate"]
            now = (ours["state"], ours["reason"] or "")
            if not seen or seen[-1][1:] != now:
                at_s = time.monotonic() - provider.began if provider.began else 0.0
                seen.append((at_s, *now))
                print(f"{at_s:6.1f} s  {' '.join(now)}", flush=True)
            time.sleep(0.25)
        client.post(f"{place}/cancel").raise_for_status()
    return seen


def main() -> int:
    """Measure, and write the part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=200, help="requests a second (default 200)")
    parser.add_argument("--seconds", type=float, default=180, help="of the phase (default 180)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    over_s = SETTLED_S + given.seconds
    provider = Provider(given.limit, SETTLED_S, over_s)
    lines = int(given.limit * (SETTLED_S + AFTER_S + 0.3 * given.seconds))
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as folder:
        gateway, url = served(Path(folder), f"http://127.0.0.1:{serve(provider)}/v1")
        try:
            seen = watch(url, lines, over_s + AFTER_S, provider)
        finally:
            gateway.terminate()
            gateway.wait()
    text = page(provider, seen, given.limit, given.seconds)
    print(text)
    write_part(given.output, "throttled", text)
    return 0


def page(provider: Provider, seen: list[tuple[float, str, str]], limit: float, seconds: float) -> str:
    """Write the part of the page."""
    over_s = SETTLED_S + seconds
    spans = [
        ("before, from its tenth second on", 10, SETTLED_S),
        (f"in the {seconds:.0f} s in which nine of ten are refused", SETTLED_S, over_s),
        ("in the ten seconds after it", over_s, over_s + 10),
        ("from then on", over_s + 10, over_s + AFTER_S - 1),
    ]
    rows = []
    for words, first, last in spans:
        good, refused = (provider.per_s(one, first, last) for one in (provider.good, provider.refused))
        rows.append(f"| {words} | {good + refused:,.0f} | {good:,.0f} | {good / limit:.0%} |")
    parked = [reason for _, state, reason in seen if state == "parked"]
    return f"""## A batch whose provider refuses nine of ten

{datetime.now(UTC):%Y-%m-%d}: a provider that takes {limit:.0f} requests a second and says so with 429 alone, a batch that may ask 200 lines at one time.
It was parked {len(parked)} times. `make bench-throttled`.

| | asked a second | answered a second | of the true limit |
|---|---|---|---|
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    raise SystemExit(main())

"""The demo itself: two scripted servers and a real gateway as processes, and the calls through them."""

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console
from rich.live import Live

from tiergate.app.client import GatewayClient
from tiergate.app.demo import scenario
from tiergate.app.demo.board import live_panel, plain_line, print_summary
from tiergate.app.demo.scenario import PlannedCall, planned_calls
from tiergate.app.demo.tally import Tally
from tiergate.app.house import read_ledger
from tiergate.core import CannotStart, TiergateError, nanos_to_usd
from tiergate.store import LiveOwner, find_owner
from tiergate.testing import MockProcess
from tiergate.wire import dumps

_START_S_MAX: Final = 15
_PLAIN_WIDTH: Final = 100
"""Where there is no terminal to ask."""
_PATIENCE_S: Final = 15
"""For the last calls, once the last has arrived."""


async def demo(*, keep: bool, seconds: float, as_json: bool) -> bool:
    """Play the demo; tell whether every call was answered and the ledger agrees with the log."""
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    with tempfile.TemporaryDirectory(prefix="tiergate-demo-") as folder:
        async with AsyncExitStack() as stack:
            hosted = stack.enter_context(MockProcess(scenario.HOSTED_SCRIPT))
            private = stack.enter_context(MockProcess(scenario.PRIVATE_SCRIPT))
            config = _write_settings(Path(folder), hosted_url=hosted.url, private_url=private.url)
            gateway, owner = await stack.enter_async_context(_gateway(config, Path(folder) / "data"))
            console.print(
                f"Hosted provider {hosted.url}, private engine {private.url}, gateway http://{owner.address}"
            )
            tally = Tally()
            reading = asyncio.create_task(_read_log(gateway, tally))
            calls = planned_calls(seconds)
            answered = await _play(calls, owner, tally, console)
            if keep:
                await _keep(console, owner, folder)
            await _stop(gateway)
            await reading
        ledger_usd = await _ledger_usd(Path(folder) / "data")
    repeated = sum(call.repeated for call in calls)
    summary = tally.summary(ledger_usd=ledger_usd, planned=len(calls), repeated=repeated)
    print_summary(console, summary)
    if as_json:
        print(dumps(summary).decode())
    return answered == len(calls) and ledger_usd == tally.spent_usd


async def _play(calls: Sequence[PlannedCall], owner: LiveOwner, tally: Tally, console: Console) -> int:
    """Send every call at its time; give how many were answered completely."""
    assert owner.address is not None
    client = GatewayClient(owner.address, token=owner.token)
    loop = asyncio.get_running_loop()
    start = loop.time()
    showing = asyncio.create_task(_show(tally, console, planned=len(calls), start=start))
    try:
        sent = []
        for call in calls:
            await asyncio.sleep(max(0, start + call.at_s - loop.time()))
            sent.append(asyncio.create_task(_call(client, call)))
        async with asyncio.timeout(_PATIENCE_S):
            done = await asyncio.gather(*sent)
        await asyncio.sleep(0.3)  # the last lines of the log are on their way
        return sum(done)
    finally:
        showing.cancel()
        await asyncio.wait([showing])
        await client.aclose()


async def _call(client: GatewayClient, call: PlannedCall) -> bool:
    headers = {"x-tiergate-class": call.call_class, "x-tiergate-tag": "demo"}
    try:
        if call.streamed:
            async for _ in client.stream(call.body, headers=headers):
                pass
        else:
            await client.chat(call.body, headers=headers)
    except TiergateError:
        return False
    return True


async def _show(tally: Tally, console: Console, *, planned: int, start: float) -> None:
    loop = asyncio.get_running_loop()
    if not console.is_terminal:
        while True:
            await asyncio.sleep(5)
            console.print(plain_line(tally, elapsed_s=loop.time() - start, planned=planned))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(live_panel(tally, elapsed_s=loop.time() - start, planned=planned), refresh=True)
            await asyncio.sleep(0.25)


@asynccontextmanager
async def _gateway(config: Path, data_dir: Path) -> AsyncIterator[tuple[Process, LiveOwner]]:
    command = ("-m", "tiergate.app.cli", "serve", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.DEVNULL, stderr=PIPE, limit=1 << 20
    )
    try:
        yield process, await _until_it_listens(process, data_dir)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until_it_listens(process: Process, data_dir: Path) -> LiveOwner:
    deadline = asyncio.get_running_loop().time() + _START_S_MAX
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            assert process.stderr is not None
            said = (await process.stderr.read()).decode(errors="replace")
            raise CannotStart(f"The demo's gateway did not start: {said.strip()[-2000:]}")
        owner = find_owner(data_dir)
        if owner is not None and owner.address is not None:
            return owner
        await asyncio.sleep(0.02)
    raise CannotStart(f"The demo's gateway did not listen within {_START_S_MAX} s.")


async def _read_log(gateway: Process, tally: Tally) -> None:
    assert gateway.stderr is not None
    async for line in gateway.stderr:
        if line.startswith(b"{"):
            tally.take(json.loads(line, parse_float=Decimal))


async def _stop(gateway: Process) -> None:
    gateway.terminate()
    async with asyncio.timeout(_PATIENCE_S):
        await gateway.wait()


async def _ledger_usd(data_dir: Path) -> Decimal:
    total = 0
    async for entry in read_ledger(data_dir):
        total += sum(attempt.cash_nanos or 0 for attempt in entry.attempts)
    return nanos_to_usd(total)


async def _keep(console: Console, owner: LiveOwner, folder: str) -> None:
    url = f"http://{owner.address}/v1"
    console.print(f"\nThe gateway stays at [bold]{url}[/bold]; its data is in {folder}/data. Try:")
    body = '{"model": "deepseek-v3.2", "max_tokens": 40, "messages": [{"role": "user", "content": "Hello!"}]}'
    console.print(
        f"  curl -N {url}/chat/stream -H 'Content-Type: application/json' \\\n    -d '{body}'",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    console.print("Press Ctrl-C to end.")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()


def _write_settings(folder: Path, *, hosted_url: str, private_url: str) -> Path:
    path = folder / "tiergate.yaml"
    given = scenario.settings(hosted_url=hosted_url, private_url=private_url, data_dir=str(folder / "data"))
    path.write_text(yaml.safe_dump(dict(given), sort_keys=False), encoding="utf-8")
    return path

"""`tiergate serve`: a house with its listener, from the first signal of life to the last."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Mapping

from tiergate.app.house import House, open_house, write_to_stderr
from tiergate.config import Address, Loaded, Settings
from tiergate.core import VERSION, Notice
from tiergate.web import LOOPBACK_NAMES, DataPlane, DoorPolicy, Listener, ListenerLimits

_MIB = 1 << 20
_GC_THRESHOLD = 20_000
_ONE_OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


async def serve(
    loaded: Loaded, *, environ: Mapping[str, str], drain_s: float, say: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT: finish what runs for at most `drain_s`; a second signal ends it now.

    SIGHUP reads the settings again.

    Raises:
        StoreOwned, CannotStart: before anything was served.
    """
    async with open_house(loaded, environ=environ, write_log=write_to_stderr) as house:
        plane = DataPlane(house.rooms, policy=_door(loaded.settings), randomness=os.urandom)
        address = loaded.settings.listen
        listener = Listener(plane, host=address.host, port=address.port, limits=ListenerLimits())
        await listener.start()
        reached = f"{_reached(address)}:{listener.port}"
        house.lock.publish(reached, house.token)
        # What is here now stays: the collector need not look at it again, and calls make few cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        say(_welcome(loaded, f"http://{reached}"))
        try:
            await _until_told(house, plane)
            plane.is_ready = False
            house.emit(Notice(word="stopping", message=f"Finishing {listener.visits} requests."))
        finally:
            await _stop(listener, drain_s)
    say("Stopped.")


async def _until_told(house: House, plane: DataPlane) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    reload_asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    reloading = asyncio.create_task(_reload_when_asked(house, plane, reload_asked))
    try:
        await told.wait()
    finally:
        reloading.cancel()


async def _reload_when_asked(house: House, plane: DataPlane, asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        if await house.reload():
            plane.policy = _door(house.settings)


async def _stop(listener: Listener, drain_s: float) -> None:
    loop = asyncio.get_running_loop()
    hurrying: set[asyncio.Task[None]] = set()

    def hurry() -> None:
        hurrying.add(asyncio.create_task(listener.stop(drain_s=0)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hurry)
    await listener.stop(drain_s=drain_s)
    await asyncio.gather(*hurrying)


def _reached(address: Address) -> str:
    """Give the host by which this machine reaches the listener, as a URL has it."""
    host = _ONE_OF_ALL.get(address.host, address.host)
    return f"[{host}]" if ":" in host else host


def _door(settings: Settings) -> DoorPolicy:
    # A page elsewhere can take neither loopback's names nor an address for its own, so these need no entry
    # in `hosts`: our own command line and the probes of this machine use them.
    return DoorPolicy(
        hosts=frozenset({*settings.hosts, *LOOPBACK_NAMES, _reached(settings.listen)}),
        cors=frozenset(settings.cors),
        body_bytes_max=int(settings.limits.body_mb * _MIB),
    )


def _welcome(loaded: Loaded, url: str) -> str:
    settings = loaded.settings
    models = ", ".join(settings.models) or "provider/upstream-name"
    model = next((name for name in settings.models if name != "*"), "MODEL")
    key = "" if settings.auth == "open" else "-H 'Authorization: Bearer YOUR_KEY' "
    question = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    lines = [
        f"Tiergate {VERSION} listens on {url}/v1",
        f"  settings  {loaded.path}",
        f"  data      {settings.data_dir}",
        f"  models    {models}",
        *(f"  note      {notice}" for notice in loaded.notices),
        f"  try       curl {url}/v1/chat/completions {key}-H 'Content-Type: application/json' \\",
        f"              -d '{question}'",
    ]
    return "\n".join(lines)

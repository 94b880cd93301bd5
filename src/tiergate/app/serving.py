"""`tiergate serve`: a house with its listener, from the first signal of life to the last."""

import asyncio
import gc
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from tiergate.admin import AdminListener, admin_plane
from tiergate.app.desk import desk_of
from tiergate.app.entropy import Entropy
from tiergate.app.house import House, open_house, write_to_stderr
from tiergate.app.listing import price_line
from tiergate.config import Address, Loaded, Settings, fill
from tiergate.core import VERSION, CannotStart, Notice, SystemClock
from tiergate.store import kept_secret
from tiergate.web import (
    LOOPBACK_NAMES,
    DataPlane,
    DoorPolicy,
    FilePolicy,
    Listener,
    ListenerLimits,
    models_list,
)

_MIB = 1 << 20
_ADMIN_FILE = "admin.token"
_GC_THRESHOLD = 50_000
_LIMITS = ListenerLimits()
_ONE_OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


async def serve(
    loaded: Loaded,
    *,
    environ: Mapping[str, str],
    grace_s: float,
    drain_s: float,
    say: Callable[[str], None],
    limits: ListenerLimits = _LIMITS,
    body_wait_s: float = 60.0,
) -> None:
    """Serve until SIGTERM or SIGINT: finish what runs for at most `drain_s`; a second signal ends it now.

    For `grace_s` before that, calls are still taken while `/health/ready` already says no, so that a balancer
    has time to look.

    SIGHUP reads the settings again. `limits` and `body_wait_s` say how long slow clients are waited for.

    Raises:
        StoreOwned, CannotStart: before anything was served.
    """
    async with open_house(loaded, environ=environ, write_log=write_to_stderr, works_batches=True) as house:
        # Whoever learns where we listen may send a signal at once.
        told, reload_asked = _on_signals()
        doors = opened_doors(house, limits=limits, body_wait_s=body_wait_s, grace_s=grace_s, drain_s=drain_s)
        async with doors as opened:
            say(_welcome(loaded, f"http://{opened.address}", admin=f"http://{opened.admin}"))
            await _until_told(house, opened.listener, told, reload_asked)
            opened.plane.is_ready = False
            house.emit(Notice(word="stopping", message=f"Finishing {opened.listener.visits} requests."))
    say("Stopped.")


class Doors(NamedTuple):
    """Both planes of a house while they listen; addresses as this machine reaches them."""

    plane: DataPlane
    listener: Listener
    address: str
    admin: str


@asynccontextmanager
async def opened_doors(
    house: House,
    *,
    listen: Address | None = None,
    admin_listen: Address | None = None,
    limits: ListenerLimits = _LIMITS,
    body_wait_s: float = 60.0,
    grace_s: float = 0.0,
    drain_s: float = 0.0,
) -> AsyncIterator[Doors]:
    """Let a house listen, and tell the command line where, until the context ends.

    Args:
        house: behind the doors.
        listen: where, instead of where the settings say, and
        admin_listen: the same of the admin plane.
        limits: how long slow clients are waited for, and
        body_wait_s: the same of their bodies.
        grace_s: how long calls are still taken at the end, and
        drain_s: how long those that run are waited for; signals cut both short.

    Raises:
        CannotStart: an address is taken.
    """
    settings = house.settings
    plane = DataPlane(
        house.rooms, policy=_door(settings, body_wait_s), randomness=Entropy(), batches=house.batches
    )
    house.on_reload(lambda new: plane.use(_door(new, body_wait_s)))
    address = listen or settings.listen
    listener = Listener(plane, host=address.host, port=address.port, limits=limits)
    await listener.start()
    admin, admin_token = _admin(house, admin_listen or settings.admin.listen)
    try:
        may_move = admin_listen is not None or "listen" not in settings.admin.model_fields_set
        await admin.start(may_move=may_move)
        reached = f"{_reached(address)}:{listener.port}"
        administered = f"{_reached(admin_listen or settings.admin.listen)}:{admin.port}"
        house.lock.publish(reached, house.token, admin=administered, admin_token=admin_token)
        _calm_collector()
        yield Doors(plane, listener, reached, administered)
    finally:
        await _stop(house, listener, grace_s=grace_s, drain_s=drain_s)
        await admin.stop()


def _admin(house: House, address: Address) -> tuple[AdminListener, str]:
    """Make the admin plane of a house; give it with its token, which is made and kept where none is set."""
    settings = house.settings
    given = settings.admin.token
    token = (
        given.reveal()
        if given is not None
        else kept_secret(settings.data_dir / _ADMIN_FILE, lambda: secrets.token_urlsafe(32))
    )
    hosts = frozenset({*settings.hosts, *LOOPBACK_NAMES, _reached(address)})
    plane = admin_plane(desk_of(house), emit=house.emit, token=token, hosts=hosts)
    return AdminListener(plane, host=address.host, port=address.port), token


def _on_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Give what is set when we are told to stop, and when to read the settings again."""
    loop = asyncio.get_running_loop()
    told, reload_asked = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    return told, reload_asked


def _calm_collector() -> None:
    """Let the garbage collector forget what is here now and stays, and look seldom: calls make few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


async def _until_told(
    house: House, listener: Listener, told: asyncio.Event, reload_asked: asyncio.Event
) -> None:
    """Wait for the signal to stop, and reload on the other one.

    Raises:
        CannotStart: the server ended by itself; a process that serves nobody must not look alive.
    """
    reloading = asyncio.create_task(_reload_when_asked(house, reload_asked))
    signalled, dead = asyncio.create_task(told.wait()), asyncio.create_task(listener.ended())
    try:
        await asyncio.wait({signalled, dead}, return_when=asyncio.FIRST_COMPLETED)
        if not told.is_set():
            raise CannotStart("The HTTP server ended by itself. Start the gateway again.")
    finally:
        for task in (reloading, signalled, dead):
            task.cancel()


async def _reload_when_asked(house: House, asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        await house.reload()


async def _stop(house: House, listener: Listener, *, grace_s: float, drain_s: float) -> None:
    """Stop listening after the grace time, and end after the drain; a second signal cuts both short."""
    loop = asyncio.get_running_loop()
    again = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, again.set)
    hurry = asyncio.create_task(again.wait())
    await asyncio.wait({hurry}, timeout=grace_s)
    stopping = asyncio.create_task(listener.stop(drain_s=drain_s))
    resting = asyncio.create_task(house.batches.shifts.aclose(drain_s))
    both = asyncio.create_task(_all_of(stopping, resting))
    await asyncio.wait({hurry, both}, return_when=asyncio.FIRST_COMPLETED)
    if not both.done():
        await asyncio.gather(listener.stop(drain_s=0), house.batches.shifts.aclose())
    hurry.cancel()
    await both


async def _all_of(*tasks: "asyncio.Task[None]") -> None:
    await asyncio.gather(*tasks)


def _reached(address: Address) -> str:
    """Give the host by which this machine reaches the listener, as a URL has it."""
    host = _ONE_OF_ALL.get(address.host, address.host)
    return f"[{host}]" if ":" in host else host


def _door(settings: Settings, body_wait_s: float) -> DoorPolicy:
    # A page elsewhere can take neither loopback's names nor an address for its own, so these need no entry
    # in `hosts`: our own command line and the probes of this machine use them.
    return DoorPolicy(
        hosts=frozenset({*settings.hosts, *LOOPBACK_NAMES, _reached(settings.listen)}),
        cors=frozenset(settings.cors),
        body_bytes_max=int(settings.limits.body_mb * _MIB),
        heartbeat_s=settings.resilience.heartbeat_s,
        body_wait_s=body_wait_s,
        files=FilePolicy(bytes_max=int(settings.limits.file_mb * _MIB), idle_s=body_wait_s),
    )


def _found(settings: Settings) -> list[str]:
    """Say what was found without a settings file: who will be called, with which key, at what price."""
    listed = models_list(fill.rules(settings, generation=1), wall_ns=SystemClock().wall_ns())
    lines = []
    for name, provider in settings.providers.items():
        key = f", key {provider.api_keys[0].hint()}" if provider.api_keys else ""
        lines.append(f"            {name}: {provider.urls[0]} ({provider.tier}{key})")
        lines += [
            f"              {target['target']}: {price_line(target)}"
            for model in listed["data"]
            for target in model["targets"]
            if target["target"].partition("/")[0] == name
        ]
    return lines


def _welcome(loaded: Loaded, url: str, *, admin: str) -> str:
    settings = loaded.settings
    models = ", ".join(settings.models) or "provider/upstream-name"
    model = next((name for name in settings.models if name != "*"), "MODEL")
    key = "" if settings.auth == "open" else "-H 'Authorization: Bearer YOUR_KEY' "
    question = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    token = f"in {settings.data_dir / _ADMIN_FILE}" if settings.admin.token is None else "of `admin.token`"
    lines = [
        f"Tiergate {VERSION} listens on {url}/v1",
        f"  settings  {loaded.path or 'none; `tiergate init` writes down what was found:'}",
        *([] if loaded.path is not None else _found(settings)),
        f"  data      {settings.data_dir}",
        f"  admin     {admin}/metrics, {admin}/api/budgets … with the token {token}",
        f"  models    {models}",
        *(f"  note      {notice}" for notice in loaded.notices),
        f"  try       curl {url}/v1/chat/completions {key}-H 'Content-Type: application/json' \\",
        f"              -d '{question}'",
    ]
    return "\n".join(lines)

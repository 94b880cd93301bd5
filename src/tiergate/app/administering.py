"""The admin plane for the command line: that of the gateway that runs, else one of this process for a moment.

So commands have one way to ask, and a gateway that runs hears of what they change.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from tiergate.admin import admin_plane
from tiergate.app.client import ANSWER_S, GatewayClient, GatewayError
from tiergate.app.desk import desk_of
from tiergate.app.house import open_house
from tiergate.config import Loaded
from tiergate.core import CannotStart, Event, Notice
from tiergate.store import find_owner
from tiergate.wire import dumps, loads, read_error

Ask = Callable[[str, Mapping[str, Any] | None], Awaitable[Any]]
"""Asks for a path with its query; with a body it is a POST. An error as answer raises `GatewayError`."""

_TOKEN: Final = "of this process alone"  # noqa: S105 - nobody else can reach the plane that it opens
_HOST: Final = "localhost"


@asynccontextmanager
async def administered(
    loaded: Loaded, environ: Mapping[str, str], *, answer_s: float = ANSWER_S
) -> AsyncIterator[Ask]:
    """Give a way to ask the admin plane of a data folder; a gateway that runs may take `answer_s` seconds.

    Raises:
        CannotStart: somebody owns the folder and has no admin plane.
    """
    owner = find_owner(loaded.settings.data_dir)
    if owner is None:
        async with open_house(loaded, environ=environ, emit=_say_if_severe) as house:
            plane = admin_plane(desk_of(house), emit=house.emit, token=_TOKEN, hosts=frozenset({_HOST}))
            yield partial(_in_process, plane)
        return
    if owner.admin is None:
        raise CannotStart(
            f"Process {owner.pid} owns the data folder {loaded.settings.data_dir} and is no gateway that can "
            "be asked. Try again when it has ended."
        )
    client = GatewayClient(owner.admin, token=owner.admin_token, pid=owner.pid, answer_s=answer_s)
    try:
        yield partial(_over_http, client)
    finally:
        await client.aclose()


def check_running(loaded: Loaded, what: str) -> None:
    """See that a gateway runs; `what` only that one knows.

    Raises:
        CannotStart: none does.
    """
    if find_owner(loaded.settings.data_dir) is None:
        raise CannotStart(
            f"No gateway runs with the data folder {loaded.settings.data_dir}, and {what} is "
            "known to the one that serves. Start it with `tiergate serve`."
        )


def _say_if_severe(event: Event) -> None:
    # What a start says, this one says too: the next one has nothing to say any more.
    if isinstance(event, Notice) and event.severe:
        print(f"note: {event.message}", file=sys.stderr)


async def _over_http(client: GatewayClient, path: str, body: Mapping[str, Any] | None = None) -> Any:
    return await (client.get(path) if body is None else client.post(path, body))


async def _in_process(plane: Any, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Call the plane as its server would."""
    data = b"" if body is None else dumps(body)
    place, _, query = path.partition("?")
    headers = [(b"host", _HOST.encode()), (b"authorization", f"Bearer {_TOKEN}".encode())]
    if body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET" if body is None else "POST",
        "scheme": "http",
        "path": place,
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
    }
    answered: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        answered.append(message)

    await plane(scope, receive, send)
    status: int = answered[0]["status"]
    whole = b"".join(message.get("body", b"") for message in answered[1:])
    if status >= 400:
        said = read_error(whole)
        assert said is not None
        raise GatewayError(said.message or "", status=status, code=said.code or "")
    return loads(whole)

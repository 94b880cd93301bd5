"""The Python door: the same path as the HTTP server, without HTTP.

If another process serves the data folder already, calls go through its data plane, so that two programs
never keep two ideas of the same money. Otherwise this process becomes the owner.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from tiergate.app.client import GatewayClient
from tiergate.app.house import House, open_house
from tiergate.app.starting import file_or_found
from tiergate.config import Loaded
from tiergate.core import LOCAL, Call, Chunk, Reply, StoreOwned, checked_idempotency_key, new_id
from tiergate.serve import Stream, handle
from tiergate.store import find_owner
from tiergate.wire import dumps, read_chat

Messages = Sequence[Mapping[str, Any]]


class Gateway:
    """Chat with every model of the settings. Use it as an async context.

    >>> async def main():
    ...     async with Gateway.from_config("tiergate.yaml") as gateway:
    ...         reply = await gateway.chat([{"role": "user", "content": "hello"}], model="deepseek-v3.2")
    ...         print(reply.text, reply.usage, reply.cost_usd, reply.target, reply.tier)
    """

    def __init__(self, loaded: Loaded, *, environ: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._environ = environ
        self._doors = AsyncExitStack()
        self._streams: set[Stream] = set()
        """Streams that nobody has read to their end yet."""
        self._house: House | None = None
        self._client: GatewayClient | None = None

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, *, environ: Mapping[str, str] | None = None
    ) -> "Gateway":
        """Read the settings; nothing is opened yet.

        None: found as the command line finds them, and without a file made of what this machine offers.

        Raises:
            SettingsError: with a sentence for each problem.
            CannotStart: there is no file, and nothing was found.
        """
        environ = os.environ if environ is None else environ
        return cls(file_or_found(None if path is None else Path(path), environ), environ=environ)

    async def __aenter__(self) -> Self:
        try:
            house = open_house(self._loaded, environ=self._environ)
            self._house = await self._doors.enter_async_context(house)
        except StoreOwned:
            owner = find_owner(self._loaded.settings.data_dir)
            if owner is None or owner.address is None:
                raise
            client = GatewayClient(owner.address, token=owner.token, pid=owner.pid)
            self._doors.push_async_callback(client.aclose)
            await self._see_that_it_lives(client)
            self._client = client
        return self

    async def _see_that_it_lives(self, client: GatewayClient) -> None:
        """Ask the gateway for what it can say at once: a call may take long, so its silence says nothing."""
        try:
            await client.get("/health/live")
        except BaseException:
            await self._doors.aclose()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._house = self._client = None
        # Before the journal closes: a stream that was left open would stay in the books as if we had died.
        for reply in tuple(self._streams):
            reply.close()
        await self._doors.aclose()

    async def chat(
        self,
        messages: Messages,
        *,
        model: str,
        idempotency_key: str | None = None,
        cache_control: str | None = None,
        **fields: Any,
    ) -> Reply:
        """Ask and wait for the whole answer. `fields` are those of the OpenAI chat completion.

        `idempotency_key`: asked again with the same one and the same question, within a day, the answer is
        the same and costs nothing. `cache_control`: whether an answer that is kept will do, in the words of
        `Cache-Control`: `no-cache`, `max-age=60`. What became of it stands in the reply's `origin.cache`.

        Raises:
            TiergateError: the message says what to do, `code` is the same whichever process serves the call.
        """
        body = {"model": model, "messages": list(messages), **fields, "stream": False}
        if self._client is not None:
            return await self._client.chat(body, headers=_headers(idempotency_key, cache_control))
        reply = await handle(self._opened.rooms, self._call(body, idempotency_key, cache_control))
        assert isinstance(reply, Reply)
        return reply

    async def stream(
        self,
        messages: Messages,
        *,
        model: str,
        idempotency_key: str | None = None,
        cache_control: str | None = None,
        **fields: Any,
    ) -> AsyncIterator[Chunk]:
        """Ask and give the answer's chunks as they arrive; ends normally only when it was complete."""
        body = {"model": model, "messages": list(messages), **fields, "stream": True}
        if self._client is not None:
            async for chunk in self._client.stream(body, headers=_headers(idempotency_key, cache_control)):
                yield chunk
            return
        reply = await handle(self._opened.rooms, self._call(body, idempotency_key, cache_control))
        assert not isinstance(reply, Reply)
        self._streams.add(reply)
        try:
            with reply:
                async for chunks in reply:
                    for chunk in chunks:
                        yield chunk
        finally:
            self._streams.discard(reply)

    @property
    def _opened(self) -> House:
        if self._house is None:
            raise RuntimeError(
                "Use the gateway as a context: `async with Gateway.from_config(…) as gateway:`"
            )
        return self._house

    def _call(self, body: dict[str, Any], idempotency_key: str | None, cache_control: str | None) -> Call:
        # Through bytes and back, so that a call from Python is held to exactly the rules of one over HTTP.
        data = dumps(body)
        question = read_chat(data)
        clock = self._opened.rooms.clock
        wall_ns = clock.wall_ns()
        return Call(
            id=new_id(wall_ns, os.urandom(10)),
            caller=LOCAL,
            endpoint="chat",
            asked_model=question.model,
            body=question.body,
            prompt_bytes=len(data),
            streamed=question.streamed,
            received_ns=wall_ns,
            received=clock.monotonic(),
            cache_control=cache_control,
            idempotency_key=checked_idempotency_key(idempotency_key),
        )


def _headers(idempotency_key: str | None, cache_control: str | None) -> dict[str, str]:
    given = {"idempotency-key": checked_idempotency_key(idempotency_key), "cache-control": cache_control}
    return {name: value for name, value in given.items() if value is not None}

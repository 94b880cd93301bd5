"""Sends Redis what comes within one turn of the event loop in one go.

A crowd of callers is then a few exchanges, and not a line for a few connections. Whoever leaves disturbs
nobody: the exchange goes on, so that no late reply is ever taken for another's.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

_AT_ONCE: Final = 100
"""So many commands go in one exchange: more would wait for each other's answers."""

Command = Callable[[Any], object]
"""Adds one command to a pipeline."""


class Gathered:
    """Exchanges with one server.

    Args:
        redis: its client, whose time-outs bound each exchange.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._exchanges: set[asyncio.Task[None]] = set()

    async def ask(self, command: Command) -> Any:
        """Send a command, and give what is answered.

        Raises:
            RedisError, OSError, TimeoutError: it was not, or it was refused.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        told = await answer
        if isinstance(told, BaseException):
            raise told
        return told

    async def aclose(self) -> None:
        """Wait for no answer any more."""
        exchanges = list(self._exchanges)
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _AT_ONCE):
            exchange = asyncio.create_task(self._exchange(waiting[first : first + _AT_ONCE]))
            self._exchanges.add(exchange)
            exchange.add_done_callback(self._exchanges.discard)

    async def _exchange(self, asked: Sequence[tuple[Command, asyncio.Future[Any]]]) -> None:
        told: Sequence[Any] = [TimeoutError()] * len(asked)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for command, _ in asked:
                    command(pipe)
                told = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            told = [error] * len(asked)
        finally:
            for (_, answer), one in zip(asked, told, strict=True):
                if not answer.done():
                    answer.set_result(one)

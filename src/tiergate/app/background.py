"""Work beside the calls that nobody awaits."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from tiergate.core import Emit, Notice


def in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None], what: str, tell: Emit) -> None:
    """Do work until the stack closes. Nobody awaits it, so an operator is told where it fails.

    `what`: the work in words, as the beginning of a sentence.
    """

    def look(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            message = f"{what} has ended, by an error ({type(error).__name__}: {error}). Restart Tiergate."
            tell(Notice(word="background_work_failed", message=message, severe=True))

    task = asyncio.create_task(work)
    task.add_done_callback(look)
    stack.callback(task.cancel)

"""Coroutines that have nothing to wait for, without a loop."""

from collections.abc import Coroutine
from typing import Any, TypeVar

Given = TypeVar("Given")


def at_once(coroutine: Coroutine[Any, Any, Given]) -> Given:
    """Run a coroutine to its end; it must not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        given: Given = end.value
        return given
    coroutine.close()
    raise AssertionError("it waits for something")

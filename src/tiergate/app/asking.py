"""`tiergate chat`: one question from the shell."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tiergate.app.gateway import Gateway
from tiergate.config import Loaded
from tiergate.core import Reply, TiergateError
from tiergate.web import event_of
from tiergate.wire import dumps, usage_object


async def ask(
    loaded: Loaded,
    messages: Sequence[Mapping[str, Any]],
    *,
    model: str,
    fields: Mapping[str, Any],
    stream: bool,
    as_json: bool,
) -> bool:
    """Ask and print; tell whether it was answered.

    As JSON an error is an object on standard output, too, the one that HTTP callers get.

    Raises:
        TiergateError: it was not, and is not to be said as JSON.
    """
    try:
        await _ask(loaded, messages, model=model, fields=fields, stream=stream, as_json=as_json)
    except TiergateError as error:
        if not as_json:
            raise
        print(event_of(error).decode())
        return False
    return True


async def _ask(
    loaded: Loaded,
    messages: Sequence[Mapping[str, Any]],
    *,
    model: str,
    fields: Mapping[str, Any],
    stream: bool,
    as_json: bool,
) -> None:
    """Ask and print the answer on standard output, its account on standard error."""
    async with Gateway(loaded, environ=os.environ) as gateway:
        if stream and not as_json:
            async for chunk in gateway.stream(messages, model=model, **fields):
                print(chunk.text, end="", flush=True)
            print()
            return
        reply = await gateway.chat(messages, model=model, **fields)
    if as_json:
        print(dumps(_said(reply)).decode())
        return
    print(reply.text)
    cost = "price unknown" if reply.cost_usd is None else f"${reply.cost_usd:f}"
    usage = reply.usage
    tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
    if not usage.total_tokens:
        tokens, cost = "no tokens reported", f"at most {cost}" if reply.cost_usd else cost
    print(f"[{reply.target}, {reply.tier}; {tokens}; {cost}]", file=sys.stderr)


def _said(reply: Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "target": reply.target,
        "tier": reply.tier,
        "attempts": reply.origin.attempts,
        "call": reply.origin.call_id,
        "finish_reasons": reply.finish,
        "usage": usage_object(reply.usage),
        "cost_usd": reply.cost_usd,
    }

"""Asks several questions at once through `tiergate.Gateway` and says what they cost together.

    python examples/ask_many.py tiergate.yaml chat

Works beside a running gateway (through it) and without one.
"""

import asyncio
import sys
from decimal import Decimal

from tiergate import Gateway

QUESTIONS = ("What is a lease?", "What is a hold?", "What is a ledger?")


async def main(settings: str, model: str) -> None:
    async with Gateway.from_config(settings) as gateway:
        replies = await asyncio.gather(
            *(gateway.chat([{"role": "user", "content": question}], model=model) for question in QUESTIONS)
        )
    for question, reply in zip(QUESTIONS, replies, strict=True):
        print(f"{question}\n  {reply.text}\n  [{reply.target}, {reply.tier}]")
    costs = [reply.cost_usd for reply in replies]
    print("cost unknown" if None in costs else f"${sum(filter(None, costs), Decimal(0))} together")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

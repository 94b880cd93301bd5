"""Estimates for a batch before its first call: prices, limits and past answers put together."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final

from tiergate.batch.estimate import Estimate, History, Sampled, estimate
from tiergate.catalog import PriceState
from tiergate.core import Caller, InvalidRequest, ModelNotFound, TiergateError, Usage
from tiergate.ledger import EntryQuery, Journal
from tiergate.metering import bound, cost_parts, shape_of
from tiergate.serve import Rooms, find_model
from tiergate.wire import chat_question, choices_asked, dumps, output_tokens_asked

SAMPLE_MAX: Final = 500
_HISTORY: Final = 500
_MODELS_MAX: Final = 20
_PRICED_TOKENS: Final = 1_000


class Estimator:
    """Tells what a batch will cost.

    Args:
        rooms: what is known of models, prices and tokens.
        journal: knows earlier answers.
    """

    def __init__(self, rooms: Rooms, journal: Journal) -> None:
        self._rooms = rooms
        self._journal = journal

    async def estimate(
        self,
        caller: Caller,
        bodies: Sequence[Mapping[str, Any]],
        *,
        lines: int,
        concurrency: int,
        budget_nanos: int | None,
    ) -> Estimate:
        """Tell what `lines` lines with bodies such as these will cost and take.

        Bodies that ask nothing are left out: their lines cost nothing, and are not many.

        Raises:
            InvalidRequest: none of them asks anything.
            StorageUnavailable: earlier answers cannot be read.
        """
        # In another thread: it takes a tenth of a second, and the event loop has calls to look after.
        sample = await asyncio.to_thread(self._sample, caller, bodies[:SAMPLE_MAX])
        return await asyncio.to_thread(
            estimate,
            sample,
            lines=lines,
            history=await self._history({one.model for one in sample}),
            concurrency=concurrency,
            budget_nanos=budget_nanos,
            random=Random(0),  # noqa: S311 - the same batch has the same estimate
        )

    def unpriced(self, caller: Caller, models: Iterable[str]) -> str | None:
        """Say what to do about the first target of one of these models that has no price; None: all have one.

        Models that there are none of are passed over: their lines fail by themselves.
        """
        rules, wall_ns = self._rooms.rules, self._rooms.clock.wall_ns()
        for model in sorted(models):
            try:
                targets = find_model(model, rules, caller).targets
            except ModelNotFound:
                continue
            for target in targets:
                if rules.prices.find(target, wall_ns).state is PriceState.UNKNOWN:
                    return (
                        f"The price of {target.name}, which may answer {model[:200]!r}, is not known, so no "
                        "budget can be kept. Give it one (`prices` in the settings), or leave the budget out."
                    )
        return None

    def _sample(self, caller: Caller, bodies: Sequence[Mapping[str, Any]]) -> list[Sampled]:
        sample: list[Sampled] = []
        refused: TiergateError | None = None
        for body in bodies:
            try:
                sample.append(self._sampled(caller, body))
            except TiergateError as error:
                refused = error
        if not sample:
            raise refused or InvalidRequest("The sample has no lines.")
        return sample

    def _sampled(self, caller: Caller, body: Mapping[str, Any]) -> Sampled:
        rules, rooms = self._rooms.rules, self._rooms
        question = chat_question(body)
        target = find_model(question.model, rules, caller).targets[0]
        wall_ns = rooms.clock.wall_ns()
        price, facts = rules.prices.find(target, wall_ns), rules.facts(target)
        input_tokens = rooms.lines.expect(target.name, shape_of(body)).input_tokens
        limit, choices = output_tokens_asked(body) or facts.output_tokens, choices_asked(body)
        question_cost = cost_parts(Usage(input=input_tokens), price, service_tier=None, at_ns=wall_ns)
        answer_cost = cost_parts(
            Usage(input=input_tokens, output=_PRICED_TOKENS), price, service_tier=None, at_ns=wall_ns
        )
        worst = bound(body, prompt_bytes=len(dumps(body)), output_tokens=limit, choices=choices, price=price)
        return Sampled(
            model=question.model,
            input_tokens=input_tokens,
            output_limit=limit,
            choices=choices,
            input_nanos=None if question_cost is None else question_cost.total_nanos,
            output_nanos=None if answer_cost is None else answer_cost.output_nanos / _PRICED_TOKENS,
            most_nanos=worst.nanos,
        )

    async def _history(self, models: set[str]) -> History:
        tokens: list[int] = []
        seconds: list[float] = []
        for model in sorted(models)[:_MODELS_MAX]:
            for entry in await self._journal.find(EntryQuery(model=model, limit=_HISTORY)):
                last = entry.attempts[-1] if entry.attempts else None
                if last is None or not last.usage.output_tokens:
                    continue
                tokens.append(last.usage.output_tokens)
                if last.sent_ns is not None and last.last_ns is not None:
                    seconds.append((last.last_ns - last.sent_ns) / 1e9)
        return History(output_tokens=tuple(tokens), seconds=tuple(seconds))

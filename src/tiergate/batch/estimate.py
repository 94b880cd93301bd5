"""What a batch will cost and how long it will take, told from a sample of its lines. Pure.

How long answers are decides, and nobody knows that before. Where answers of the same model are on record,
lengths are drawn from theirs; where there are none, all lines together take some share of what they may, and
every share from a twentieth to the whole is as likely: so the range is wide, and says so.
"""

from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Final

import msgspec

_DRAWS: Final = 400
_LINES_A_DRAW: Final = 200
_LOW, _HIGH = 0.1, 0.9
_LEAST_SHARE: Final = 0.05
_HISTORY_MIN: Final = 20
"""Answers on record that are worth more than no idea."""
_UNKNOWN_LIMIT: Final = 1_024
"""Tokens that an answer may have where neither the line nor the model sets a limit."""


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the sample at the target that it would go to. Amounts are nano-dollars.

    `input_nanos`, `output_nanos`: of the question, and of one token of the answer; None: no price is known.
    """

    model: str
    input_tokens: int
    output_limit: int | None
    choices: int
    input_nanos: float | None
    output_nanos: float | None
    most_nanos: int | None
    """The most that it can cost; None: nobody can tell."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of a model that are on record: their tokens, and seconds."""

    output_tokens: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A middle, and what lies below and above it in one of ten cases each."""

    low: float
    middle: float
    high: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate. Amounts are nano-dollars, times seconds."""

    lines: int
    sampled: int
    input_tokens: int
    output_tokens: Range
    cost_nanos: Range | None
    """None: a price is unknown."""
    most_nanos: int | None
    """What it cannot cost more than; None: nobody can tell."""
    seconds: Range | None
    """None: no answer is on record that would tell."""
    chance: float | None
    """That the whole of it fits into the budget; None: there is none, or no price."""
    answers_known: int
    """Answers on record that it is told from; 0: the length of answers is assumed."""


def estimate(
    sample: Sequence[Sampled],
    *,
    lines: int,
    history: History,
    concurrency: int,
    budget_nanos: int | None,
    random: Random,
) -> Estimate:
    """Tell what `lines` lines like those of the sample will cost and take."""
    assert sample
    is_priced = all(one.input_nanos is not None and one.output_nanos is not None for one in sample)
    tokens, costs = [], []
    for _ in range(_DRAWS):
        drawn_tokens, drawn_cost = _draw(sample, history, random)
        tokens.append(drawn_tokens * lines)
        costs.append(drawn_cost * lines)
    most = [one.most_nanos for one in sample]
    known = [one for one in most if one is not None]
    is_met = budget_nanos is not None and is_priced
    return Estimate(
        lines=lines,
        sampled=len(sample),
        input_tokens=round(fmean(one.input_tokens for one in sample) * lines),
        output_tokens=_range(tokens),
        cost_nanos=_range(costs) if is_priced else None,
        most_nanos=round(fmean(known) * lines) if len(known) == len(most) else None,
        seconds=_seconds(lines, history, concurrency),
        chance=sum(cost <= (budget_nanos or 0) for cost in costs) / len(costs) if is_met else None,
        answers_known=len(history.output_tokens) if _is_told(history) else 0,
    )


def _draw(sample: Sequence[Sampled], history: History, random: Random) -> tuple[float, float]:
    """Draw a batch; give the mean output tokens and the mean cost of its lines."""
    told = history.output_tokens if _is_told(history) else ()
    # Answers to other questions were as long as they were: how far those of this batch differ as a whole is
    # not known, the less the fewer there are.
    scale = random.lognormvariate(0, 0.1 + 1 / len(told) ** 0.5) if told else random.uniform(_LEAST_SHARE, 1)
    tokens = cost = 0.0
    for one in random.choices(sample, k=_LINES_A_DRAW):
        limit = one.output_limit or _UNKNOWN_LIMIT
        output = min(limit, random.choice(told) * scale) if told else limit * scale
        tokens += output * one.choices
        cost += (one.input_nanos or 0) + (one.output_nanos or 0) * output * one.choices
    return tokens / _LINES_A_DRAW, cost / _LINES_A_DRAW


def _seconds(lines: int, history: History, concurrency: int) -> Range | None:
    if len(history.seconds) < _HISTORY_MIN:
        return None
    middle = lines * fmean(history.seconds) / min(concurrency, lines)
    # Of load that was not there when those were answered nothing is known.
    return Range(low=middle / 2, middle=middle, high=middle * 3)


def _is_told(history: History) -> bool:
    return len(history.output_tokens) >= _HISTORY_MIN


def _range(drawn: list[float]) -> Range:
    drawn.sort()
    last = len(drawn) - 1
    return Range(low=drawn[round(_LOW * last)], middle=drawn[last // 2], high=drawn[round(_HIGH * last)])

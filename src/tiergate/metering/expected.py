"""How many input tokens a question is expected to have: a line through its shape, learned per target.

For estimates and routing, never for holds: an expectation is wrong by some percent in either direction, and
says by how many. It begins with weights that hold for the large public tokenizers and is corrected by every
report that it is shown (recursive least squares, errors weighted by size, so that a short question counts
like a long one).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final

from tiergate.metering.shape import COUNTED, Shape

# Fitted by least squares to 3,500 texts (mathematics, code, documentation, JSON, base64, emoji, and
# Django's translations into nine languages) under the tokenizers cl100k_base and o200k_base, and averaged
# over the two; 2026-11-26. The last two are what chat templates add: per message, and once.
_WEIGHTS: Final = (
    1.05, 0.39, 0.92, 1.22, 0.75, 0.04, 0.41,
    0.26, 0.30, 0.43, 0.82, 0.20, 0.88, 0.87, 2.55,
    4.0, 3.0,
)  # fmt: skip
assert len(_WEIGHTS) == len(COUNTED) + 1

_UNCERTAIN: Final = (*[0.3] * (len(COUNTED) - 1), 4.0, 10_000.0)
"""How far (variance) a weight may be off at first. Some providers put a thousand tokens before a question."""
_NOISE: Final = 0.0005
"""Variance of a report around the line, relative to its size."""
_MEMORY: Final = 0.9995
"""What a report counts less with each later one, so that a target that changes is followed."""
_SMALL: Final = 10
"""Tokens that are added to a size before errors are taken relative to it."""
_ERRORS_KEPT: Final = 200
_ERRORS_NEEDED: Final = 20
_TARGETS_MAX: Final = 2_000
_EVERY: Final = 200
_THEN_ONE_IN: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An expectation, and how far off the last ones were.

    `error` is their median error as a share of the truth. It is None while too few were seen; then it is the
    general line, which is off by 4 to 16 % as a rule and can be off by 40.
    """

    input_tokens: int
    error: float | None
    learned_from: int


class Line:
    """The line of one target."""

    def __init__(self) -> None:
        self._weights = list(_WEIGHTS)
        self._spread = [
            [variance if row == column else 0.0 for column in range(len(_WEIGHTS))]
            for row, variance in enumerate(_UNCERTAIN)
        ]
        self._errors: deque[float] = deque(maxlen=_ERRORS_KEPT)
        self.learned_from = 0

    def expect(self, shape: Shape) -> Expected:
        """Tell how many tokens a question of this shape has."""
        error = median(self._errors) if len(self._errors) >= _ERRORS_NEEDED else None
        return Expected(
            input_tokens=max(1, round(self._at((*shape, 1)))), error=error, learned_from=self.learned_from
        )

    def learn(self, shape: Shape, tokens: int) -> None:
        """Take in how many tokens a question of this shape had."""
        point = (*shape, 1)
        said = self._at(point)
        self._errors.append(abs(said - tokens) / max(1, tokens))
        self.learned_from += 1
        scale = 1 / (tokens + _SMALL)
        scaled = [count * scale for count in point]
        gain = [_dot(row, scaled) for row in self._spread]
        share = _MEMORY * _NOISE + _dot(gain, scaled)
        step = (tokens - said) * scale / share
        self._weights = [weight + one * step for weight, one in zip(self._weights, gain, strict=True)]
        self._spread = [
            [(entry - one * other / share) / _MEMORY for entry, other in zip(row, gain, strict=True)]
            for row, one in zip(self._spread, gain, strict=True)
        ]
        self._bound_spread()

    def _bound_spread(self) -> None:
        """Let no weight become less certain than at the start, as forgetting makes one that is never seen."""
        shrink = [
            sqrt(most / row[place]) if row[place] > most else 1.0
            for place, (row, most) in enumerate(zip(self._spread, _UNCERTAIN, strict=True))
        ]
        if min(shrink) < 1:
            self._spread = [
                [entry * one * other for entry, other in zip(row, shrink, strict=True)]
                for row, one in zip(self._spread, shrink, strict=True)
            ]

    def _at(self, point: Sequence[int]) -> float:
        return _dot(self._weights, point)


class Lines:
    """The lines of all targets, by `provider/model`; one that has not been seen has the general line."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._seen: dict[str, int] = {}

    def expect(self, target: str, shape: Shape) -> Expected:
        """Tell how many tokens a question of this shape has at a target."""
        return (self._lines.get(target) or _GENERAL).expect(shape)

    def learn(self, target: str, shape: Shape, tokens: int) -> None:
        """Take in how many tokens a question of this shape had at a target."""
        line = self._lines.get(target)
        if line is None:
            if len(self._lines) >= _TARGETS_MAX:
                return  # callers choose names, so what is kept of them is bounded
            line = self._lines[target] = Line()
        line.learn(shape, tokens)

    def wants(self, target: str) -> bool:
        """Tell whether to take the shape of the next question: of each at first, of one in fifty later."""
        if len(self._seen) >= _TARGETS_MAX and target not in self._seen:
            return False
        seen = self._seen[target] = self._seen.get(target, 0) + 1
        return seen <= _EVERY or seen % _THEN_ONE_IN == 0


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum([a * b for a, b in zip(one, other, strict=True)])


_GENERAL: Final = Line()

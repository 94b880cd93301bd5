"""Limits as OpenAI has them: of each model, filled bit by bit, told in the headers of every answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]

_MINUTE_S: Final = 60.0
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests and tokens per minute of each model; None: no limit."""

    rpm: Positive | None = None
    tpm: Positive | None = None
    """Of a question, and of the output that it allows, or has where it sets no limit."""


class Granted(NamedTuple):
    """Whether a request may come in, and what its answer's headers say."""

    wait_s: float
    """0: it may; otherwise the seconds until it may, and nothing was taken."""
    headers: Mapping[str, str]


class Allowing:
    """Counts what the models of one provider are asked."""

    def __init__(self, limits: Limits) -> None:
        self._limits = {"requests": limits.rpm, "tokens": limits.tpm}
        self._models: dict[str, dict[str, _Level]] = {}

    def ask(self, model: str, tokens: int, now: float) -> Granted:
        """Let a request of so many tokens in if it may come."""
        levels = self._models.get(model)
        if levels is None:
            levels = self._models[model] = {
                name: _Level(limit, now) for name, limit in self._limits.items() if limit is not None
            }
        amounts = {"requests": 1, "tokens": tokens}
        wait_s = max((level.wait_s(amounts[name], now) for name, level in levels.items()), default=0.0)
        headers: dict[str, str] = {}
        for name, level in levels.items():
            if not wait_s:
                level.left -= min(amounts[name], level.limit)
            headers[f"x-ratelimit-limit-{name}"] = str(level.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, int(level.left + _ROUNDING)))
            headers[f"x-ratelimit-reset-{name}"] = _span((level.limit - level.left) / level.per_s)
        return Granted(wait_s, headers)


class _Level:
    """What is left of one rate; it begins full."""

    __slots__ = ("_at", "left", "limit", "per_s")

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.per_s = limit / _MINUTE_S
        self.left = float(limit)
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        self.left = min(self.limit, self.left + (now - self._at) * self.per_s)
        self._at = now
        missing = min(amount, self.limit) - self.left
        return missing / self.per_s if missing > _ROUNDING else 0.0


def _span(seconds: float) -> str:
    """Write a time as OpenAI does: `20ms`, `8.64s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1_000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"

"""Which behaviour a request gets: the rules, what the request itself wishes, and chance."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple

import yaml

from tiergate.core import SettingsError
from tiergate.testing.behaviour import Behaviour
from tiergate.testing.script import Rule, Script, When, changed

WISH_HEADER: Final = "x-mock-behaviour"

_TRUNCATED_AFTER_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a rule may look at. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    model: str = ""
    streamed: bool = False
    wish: str | None = None
    """What the message itself wished for, after `[[mock:`."""


class Cue(NamedTuple):
    """A behaviour with nothing left to chance, and its pace in seconds."""

    behaviour: Behaviour
    ttft_s: float
    gap_s: float
    """Between two tokens; 0: all at once."""


class Player:
    """Plays one script; counts requests and draws numbers in the order in which requests come."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._chance = random.Random(script.seed)  # noqa: S311 - reproducible by intent, nothing to guess
        self._counts = [0] * len(script.rules)

    def choose(self, visit: Visit) -> Cue:
        """Choose for one request.

        Raises:
            SettingsError: the request wished for something that there is not.
        """
        behaviour = self._by_rule(visit)
        for wish in (visit.headers.get(WISH_HEADER), visit.wish):
            if wish is not None:
                behaviour = self._wished(behaviour, wish)
        return self._cue(behaviour)

    def rule_for(self, path: str, headers: Mapping[str, str]) -> Cue | None:
        """Choose for a request that is no chat: only a rule for its path counts."""
        for place, rule in enumerate(self._script.rules):
            if self._fits(place, rule, Visit(path=path, headers=headers)):
                return self._cue(rule.then)
        return None

    def _by_rule(self, visit: Visit) -> Behaviour:
        for place, rule in enumerate(self._script.rules):
            if self._fits(place, rule, visit):
                return rule.then
        return self._script.default

    def _fits(self, place: int, rule: Rule, visit: Visit) -> bool:
        when = rule.when
        if not _describes(when, visit):
            return False
        self._counts[place] += 1
        number = self._counts[place]
        if when.nth is not None and number not in ((when.nth,) if isinstance(when.nth, int) else when.nth):
            return False
        if when.first is not None and number > when.first:
            return False
        return when.probability is None or self._chance.random() < when.probability

    def _wished(self, behaviour: Behaviour, wish: str) -> Behaviour:
        named = self._script.behaviours.get(wish.strip())
        return named if named is not None else changed(behaviour, read_wish(wish), "mock", lenient=True)

    def _cue(self, behaviour: Behaviour) -> Cue:
        if behaviour.error_rate or behaviour.truncate_rate:
            behaviour = self._drawn(behaviour)
        ttft_s = behaviour.ttft_ms / 1_000
        rate = behaviour.tokens_per_s
        if behaviour.ttft_spread:
            ttft_s *= self._chance.lognormvariate(0.0, behaviour.ttft_spread)
        if behaviour.rate_spread:
            rate *= self._chance.lognormvariate(0.0, behaviour.rate_spread)
        return Cue(behaviour, ttft_s, 1 / rate if rate else 0.0)

    def _drawn(self, behaviour: Behaviour) -> Behaviour:
        if behaviour.error_rate:
            failing = behaviour.status if behaviour.status >= 400 else 500
            unlucky = self._chance.random() < behaviour.error_rate
            behaviour = replace(behaviour, status=failing if unlucky else 200)
        if behaviour.truncate_rate and self._chance.random() < behaviour.truncate_rate:
            behaviour = replace(behaviour, clean_cut_after=self._chance.randint(1, _TRUNCATED_AFTER_MAX))
        return behaviour


@lru_cache(maxsize=256)
def read_wish(wish: str) -> Mapping[str, object]:
    """Read what a request wishes: `{stall_after: 3}` in YAML or JSON, or `stall_after=3, no_done`.

    Raises:
        SettingsError: it cannot be read.
    """
    wish = wish.strip()
    try:
        if wish.startswith("{"):
            given = yaml.safe_load(wish)
            assert isinstance(given, dict)
            return given
        return {key: value for key, value in map(_setting, wish.split(",")) if key}
    except yaml.YAMLError as error:
        raise SettingsError((f"mock: cannot read {wish[:100]!r}",)) from error


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    return key.strip(), value.strip() if equals else True


def _describes(when: When, visit: Visit) -> bool:
    if when.stream is not None and when.stream != visit.streamed:
        return False
    if not fnmatchcase(visit.path, when.path) or not fnmatchcase(visit.model, when.model):
        return False
    return all(
        _header_fits(visit.headers.get(name.lower()), pattern) for name, pattern in when.header.items()
    )


def _header_fits(value: str | None, pattern: str | None) -> bool:
    if value is None or pattern is None:
        return value is pattern
    return fnmatchcase(value, pattern)

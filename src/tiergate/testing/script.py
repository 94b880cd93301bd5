"""A script: which request is answered how."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from tiergate.capacity import EngineModel
from tiergate.core import SettingsError
from tiergate.testing.behaviour import Behaviour, Share
from tiergate.testing.limits import Limits, Positive
from tiergate.testing.reading import read_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Which requests a rule is for: all that it names must hold."""

    model: str = "*"
    """A pattern for the model's name, with `*` and `?`."""
    path: str = "/v1/chat/completions"
    """A pattern for the path. Rules for other paths can only break them: they have no answers to shape."""
    header: Mapping[str, str | None] = field(default_factory=dict)
    """A pattern for each of these request headers; null: the header is absent."""
    stream: bool | None = None
    """Only streamed requests, or only others."""
    nth: int | tuple[int, ...] | None = None
    """Only the nth request (or these) for which all of the above holds."""
    first: Positive | None = None
    """Only the first so many of them."""
    probability: Share | None = None
    """Only this share of them, drawn with the script's seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Requests, and the way to answer them."""

    when: When
    then: Behaviour


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything the mock needs to know; the first rule that fits decides, else the default.

    >>> script = Script.from_yaml('''
    ... default: {words: 40, ttft_ms: 20, tokens_per_s: 200}
    ... rules:
    ...   - {when: {nth: 2}, then: {status: 503}}
    ... ''')
    >>> script.rules[0].then.status, script.rules[0].then.words
    (503, 40)
    """

    default: Behaviour = field(default_factory=Behaviour)
    rules: tuple[Rule, ...] = ()
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    """Ways to answer that rules and requests may name."""
    models: tuple[str, ...] = ()
    """The models that there are; none: any name is good."""
    rpm: int | None = None
    """Requests in any 60 s; more are answered 429, with the wait."""
    limits: Limits | None = None
    """Of each model; every answer's headers tell what is left, as OpenAI's do."""
    engine: EngineModel | None = None
    """Answers come from an engine with slots and a queue, and its pace replaces tokens_per_s."""
    tls: str | None = None
    """A PEM file with key and certificate, good or not: the server speaks TLS with it."""
    seed: int = 0

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "script") -> "Script":
        """Read a script.

        Raises:
            SettingsError: a sentence for each thing that is wrong, with the key's name.
        """
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError((f"{source}: {_place(error)}",)) from error
        return cls.from_mapping({} if given is None else given, source=source)

    @classmethod
    def from_mapping(cls, given: object, *, source: str = "script") -> "Script":
        """Read a script that was parsed already; see `from_yaml`."""
        top = read_fields(_Top, given, source)
        default = changed(Behaviour(), top.get("default", {}), f"{source}.default")
        behaviours = {
            name: changed(default, changes, f"{source}.behaviours.{name}")
            for name, changes in top.get("behaviours", {}).items()
        }
        return cls(
            default=default,
            behaviours=behaviours,
            rules=tuple(
                _rule(rule, default, behaviours, f"{source}.rules[{place}]")
                for place, rule in enumerate(top.get("rules", ()))
            ),
            models=top.get("models", ()),
            rpm=top.get("rpm"),
            limits=_limits(top["limits"], f"{source}.limits") if "limits" in top else None,
            engine=_engine(top["engine"], f"{source}.engine") if "engine" in top else None,
            tls=top.get("tls"),
            seed=top.get("seed", 0),
        )


def changed(behaviour: Behaviour, changes: object, where: str, *, lenient: bool = False) -> Behaviour:
    """Give a behaviour with some keys set anew.

    Raises:
        SettingsError: an unknown key, a value of the wrong type, or keys that cannot go together.
    """
    values = read_fields(Behaviour, changes, where, lenient=lenient)
    try:
        return replace(behaviour, **values)
    except ValueError as error:
        raise SettingsError((f"{where}: {error}",)) from error


@dataclass
class _Top:
    seed: int
    models: tuple[str, ...]
    rpm: Positive
    limits: Any
    tls: str
    engine: Any
    default: Any
    behaviours: dict[str, Any]
    rules: list[Any]


@dataclass
class _RuleKeys:
    when: Any
    then: Any


def _rule(given: object, default: Behaviour, behaviours: Mapping[str, Behaviour], where: str) -> Rule:
    keys = read_fields(_RuleKeys, given, where)
    if "then" not in keys:
        raise SettingsError((f"{where}: the key 'then' is missing; it says how to answer",))
    when = When(**read_fields(When, keys.get("when", {}), f"{where}.when"))
    then = keys["then"]
    if not isinstance(then, str):
        return Rule(when=when, then=changed(default, then, f"{where}.then"))
    if then not in behaviours:
        known = ", ".join(behaviours) or "none"
        raise SettingsError((f"{where}.then: no behaviour is named {then!r}; named are: {known}",))
    return Rule(when=when, then=behaviours[then])


def _limits(given: object, where: str) -> Limits:
    return Limits(**read_fields(Limits, given, where))


def _engine(given: object, where: str) -> EngineModel:
    try:
        return EngineModel(**read_fields(EngineModel, given, where))
    except ValueError as error:
        raise SettingsError((f"{where}: {error}",)) from error


def _place(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)

"""The single values of the settings: how each is read from text, shown, and described to an editor.

Every value of the file arrives as text and the setting decides what it means, so that `3.10`, `on` and
`1:30` are never taken for a number, a truth or a time before anyone asked.
"""

import math
import re
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from tiergate.config.addresses import Address, read_address, read_base_url, read_host_name, read_origin
from tiergate.config.scalar import Scalar, nearest, needs, refuse, text_of
from tiergate.config.secret import Secret

Number = TypeVar("Number", int, float, Decimal)


# --- numbers --------------------------------------------------------------------------------------------

_VARIABLE: Final = r"\$\{"
_WHOLE: Final = re.compile(r"[+-]?[0-9][0-9_]{0,17}", re.ASCII)
_DECIMAL: Final = re.compile(
    r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?", re.ASCII
)
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(s|m|h|d|w|y)?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_LONGEST_S: Final = 100 * _SECONDS["y"]
_LEAST_USD: Final = Decimal("1e-9")


def _within(number: Number, low: Number, high: Number, what: str) -> Number:
    return number if low <= number <= high else needs(what)


def whole(low: int, high: int) -> Scalar:
    """A whole number from `low` to `high`."""
    what = f"a whole number from {low} to {high}"

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return _within(value, low, high, what)
        text = text_of(value, what)
        return _within(int(text), low, high, what) if _WHOLE.fullmatch(text) else needs(what)

    return Scalar(
        parse,
        f"whole number, {low} to {high}",
        {"type": ["integer", "string"], "minimum": low, "maximum": high, "pattern": _VARIABLE},
    )


def _exact(value: object, what: str) -> Decimal:
    """Read a number without ever passing through binary fractions, so that 0.14 stays 0.14."""
    if isinstance(value, Decimal) and value.is_finite():
        return value
    if isinstance(value, float) and math.isfinite(value):
        return Decimal(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    text = text_of(value, what)
    return Decimal(text) if _DECIMAL.fullmatch(text) else needs(what)


def _usd(value: object) -> Decimal:
    what = "an amount in USD, such as 0.14"
    return _within(_exact(value, what), Decimal(0), Decimal(1_000_000_000), what)


def _usd_above_zero(value: object) -> Decimal:
    usd = _usd(value)
    # Money is counted in billionths of a dollar: less than one would be nothing.
    return usd if usd >= _LEAST_USD else needs("an amount in USD above 0, such as 20")


def number(low: str, high: str) -> Scalar:
    """A number above `low` and up to `high`."""
    what = f"a number above {low} and up to {high}"

    def parse(value: object) -> float:
        exact = _exact(value, what)
        return float(exact) if Decimal(low) < exact <= Decimal(high) else needs(what)

    return Scalar(
        parse,
        f"number, above {low}, up to {high}",
        {
            "type": ["number", "string"],
            "exclusiveMinimum": float(low),
            "maximum": float(high),
            "pattern": _VARIABLE,
        },
    )


def _duration(value: object) -> float:
    what = "a time such as 90d, 24h, 15m, 30s, or a number of seconds, above 0 and up to 100y"
    seconds = _seconds(value, what)
    return seconds if 0 < seconds <= _LONGEST_S else needs(what)


def _duration_or_none(value: object) -> float:
    what = "a time such as 90d, 24h, 15m, 30s, or a number of seconds, up to 100y, or 0"
    seconds = _seconds(value, what)
    return seconds if 0 <= seconds <= _LONGEST_S else needs(what)


def _seconds(value: object, what: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.fullmatch(text_of(value, what).strip())
    if match is None:
        needs(what)
    return float(Decimal(match[1]) * _SECONDS[match[2] or "s"])


def duration_text(seconds: float) -> str:
    """Write seconds in the largest unit that leaves nothing over.

    >>> duration_text(86400), duration_text(90), duration_text(0.5)
    ('1d', '90s', '0.5s')
    """
    for unit in ("y", "d", "h", "m"):
        if seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.15g}s"


def _truth(value: object) -> bool:
    what = "true or false"
    if isinstance(value, bool):
        return value
    match text_of(value, what).lower():
        case "true" | "yes" | "on":
            return True
        case "false" | "no" | "off":
            return False
        case _:
            return needs(what)


def _day(value: object) -> date:
    what = "a day such as 2026-01-31"
    if isinstance(value, date):
        return value
    text = text_of(value, what)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
        needs(what)
    try:
        return date.fromisoformat(text)
    except ValueError:
        needs(what)


def _day_time(value: object) -> time:
    what = "a time of the day such as 09:00"
    if isinstance(value, time):
        return value
    text = text_of(value, what)
    if not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", text, re.ASCII):
        needs(what)
    return time.fromisoformat(text)


_WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _week_days(value: object) -> tuple[int, ...]:
    what = "days such as mon-fri, sat or mon,wed"
    if isinstance(value, tuple):
        return value
    found: set[int] = set()
    for part in text_of(value, what).lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if first not in _WEEK or (dash and last not in _WEEK):
            needs(what)
        begin, end = _WEEK.index(first), _WEEK.index(last if dash else first)
        found.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return tuple(sorted(found))


def _week_text(days: tuple[int, ...]) -> str:
    return ",".join(_WEEK[day] for day in days)


# --- names ----------------------------------------------------------------------------------------------

_PROVIDER: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_CALLER: Final = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_MODEL: Final = r"[!-~]{1,200}"
_TARGET: Final = rf"{_PROVIDER}/{_MODEL}"
_SCOPE: Final = rf"all|tier:(?:private|hosted)|(?:key|team):{_CALLER}|model:{_MODEL}"


def _named(pattern: str, what: str, label: str) -> Scalar:
    compiled = re.compile(pattern, re.ASCII)

    def parse(value: object) -> str:
        text = text_of(value, what)
        return text if compiled.fullmatch(text) else needs(what)

    return Scalar(parse, label, {"type": "string", "pattern": rf"^(?:{pattern})$|{_VARIABLE}"})


def _free_text(value: object) -> str:
    what = "a text of at most 1000 characters"
    text = text_of(value, what)
    return text if len(text) <= 1000 else needs(what)


def _timezone(value: object) -> str:
    what = "a time zone such as UTC or Europe/Berlin"
    text = text_of(value, what)
    if text == "UTC":  # Known without the system's data, which a small container may lack.
        return text
    try:
        return ZoneInfo(text).key
    except (LookupError, ValueError, OSError):
        needs(what, near=nearest(text, available_timezones()))


def _folder(value: object) -> Path:
    if isinstance(value, Path):
        return value
    what = "the path of a file or folder"
    text = text_of(value, what)
    if not text or any(ord(letter) < 32 for letter in text):
        needs(what)
    if text.startswith("~"):
        refuse("cannot begin with ~: write the whole path, or ${HOME}/… in quotes")
    return Path(text)


# --- secrets --------------------------------------------------------------------------------------------

_SHORTEST_SECRET: Final = 32


def _revealed(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    return value if isinstance(value, str) else refuse("needs a text")


def _credential(value: object) -> Secret:
    text = _revealed(value)
    if not text:
        refuse("is empty")
    if not re.fullmatch(r"[!-~]{1,4096}", text, re.ASCII):
        refuse(
            "holds a space, a line break or another character that no HTTP header can carry; look at its ends"
        )
    return Secret(text)


def _passphrase(value: object) -> Secret:
    text = _revealed(value)
    if len(text) < _SHORTEST_SECRET:
        refuse(f"needs at least {_SHORTEST_SECRET} characters: make one with `openssl rand -hex 32`")
    return Secret(text)


def _secret_url(*schemes: str) -> Callable[[object], Secret]:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)

    def parse(value: object) -> Secret:
        text = _revealed(value)
        if not re.fullmatch(r"[!-~]{1,2000}", text, re.ASCII) or text.partition("://")[0] not in schemes:
            refuse(f"needs a URL that begins with {wanted}")
        if "http" in schemes and not _has_place(text):
            refuse("needs a URL with a host name, and a port from 1 to 65535 if any")
        return Secret(text)

    return parse


def _has_place(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(re.fullmatch(r"[0-9A-Za-z._:-]+", parts.hostname or "", re.ASCII)) and parts.port != 0
    except ValueError:
        return False


def _hidden(parse: Callable[[object], Secret], label: str) -> Scalar:
    return Scalar(parse, label, {"type": "string", "writeOnly": True}, dump=Secret.hint)


# --- the kinds, as annotations --------------------------------------------------------------------------

Usd = Annotated[
    Decimal,
    Scalar(_usd, "USD", {"type": ["number", "string"], "minimum": 0, "pattern": _VARIABLE}, dump=float),
]
UsdAboveZero = Annotated[
    Decimal,
    Scalar(
        _usd_above_zero,
        "USD, above 0",
        {"type": ["number", "string"], "exclusiveMinimum": 0, "pattern": _VARIABLE},
        dump=float,
    ),
]
Duration = Annotated[
    float,
    Scalar(
        _duration,
        "time",
        {
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "pattern": rf"^[0-9]+(\.[0-9]+)?\s*[smhdwy]?$|{_VARIABLE}",
        },
    ),
]
DurationOrZero = Annotated[
    float,
    Scalar(
        _duration_or_none,
        "time",
        {
            "type": ["number", "string"],
            "minimum": 0,
            "pattern": rf"^[0-9]+(\.[0-9]+)?\s*[smhdwy]?$|{_VARIABLE}",
        },
    ),
]
Truth = Annotated[
    bool, Scalar(_truth, "true or false", {"type": ["boolean", "string"], "pattern": _VARIABLE})
]
Day = Annotated[
    date,
    Scalar(
        _day,
        "day",
        {"type": "string", "pattern": rf"^\d{{4}}-\d\d-\d\d$|{_VARIABLE}"},
        date.isoformat,
    ),
]
DayTime = Annotated[
    time,
    Scalar(
        _day_time,
        "HH:MM",
        {"type": "string", "pattern": rf"^\d\d:\d\d$|{_VARIABLE}"},
        lambda moment: moment.strftime("%H:%M"),
    ),
]
WeekDays = Annotated[tuple[int, ...], Scalar(_week_days, "days", {"type": "string"}, _week_text)]
CurrencyName = Annotated[str, _named(r"[A-Z]{3}", "a currency of three letters, such as EUR", "EUR, CNY, …")]
TierName = Annotated[str, _named(r"[a-z0-9_.-]{1,32}", "a service tier, such as batch", "name")]
ProviderName = Annotated[
    str, _named(_PROVIDER, "a name of letters, digits, dots, dashes and underscores (at most 64)", "name")
]
CallerName = Annotated[
    str, _named(_CALLER, "a name of letters, digits, dots, dashes, underscores and @ (at most 64)", "name")
]
ModelName = Annotated[
    str, _named(_MODEL, "a model name without spaces, at most 200 characters", "model name")
]
TargetName = Annotated[
    str, _named(_TARGET, "a target: provider/upstream-name, such as rack/llama-3", "provider/upstream-name")
]
Scope = Annotated[
    str,
    _named(
        _SCOPE,
        "a scope: all, key:NAME, team:NAME, model:NAME, tier:private or tier:hosted",
        "all, key:NAME, team:NAME, model:NAME or tier:NAME",
    ),
]
FreeText = Annotated[str, Scalar(_free_text, "text", {"type": "string"})]
TimeZone = Annotated[str, Scalar(_timezone, "time zone", {"type": "string"})]
FilePath = Annotated[Path, Scalar(_folder, "path", {"type": "string"}, dump=str)]
Listen = Annotated[Address, Scalar(read_address, "host:port", {"type": "string"}, dump=str)]
BaseUrl = Annotated[
    str, Scalar(read_base_url, "URL", {"type": "string", "pattern": rf"^https?://|{_VARIABLE}"})
]
CorsOrigin = Annotated[str, Scalar(read_origin, "origin", {"type": "string"})]
HostName = Annotated[str, Scalar(read_host_name, "host name", {"type": "string"})]
Credential = Annotated[Secret, _hidden(_credential, "secret")]
Passphrase = Annotated[Secret, _hidden(_passphrase, "secret, 32 characters or more")]
StoreUrl = Annotated[Secret, _hidden(_secret_url("postgresql", "postgres"), "secret URL")]
RedisUrl = Annotated[Secret, _hidden(_secret_url("redis", "rediss"), "secret URL")]
WebUrl = Annotated[Secret, _hidden(_secret_url("https", "http"), "secret URL")]

Api = Literal["openai", "anthropic"]
Tier = Literal["hosted", "private"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Engine = Literal["vllm", "sglang", "llamacpp", "ollama", "transformers", "other"]
HintName = Literal["cache_salt", "prompt_cache_key"]
CacheWhen = Literal["temperature-zero", "always", "never"]
Policy = Literal["in-order", "hybrid", "by-class", "cheapest", "fastest", "weighted"]

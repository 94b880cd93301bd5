"""Virtual keys on the admin plane: what may be asked for, and how a key looks from outside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tiergate.admin.objects import time_text
from tiergate.admission import (
    CHOICES_MAX,
    CONCURRENCY_MAX,
    IMAGES_MAX,
    OUTPUT_TOKENS_MAX,
    RPM_MAX,
    TPM_MAX,
    KeyBudget,
    KeyLimits,
    VirtualKey,
)
from tiergate.core import REASONING_EFFORTS, DataClass, InvalidRequest, Tier, nanos_to_usd, usd_to_nanos
from tiergate.ledger import Period
from tiergate.rates import WithoutBank

KNOWN: Final = frozenset(
    {"name", "team", "models", "tiers", "data", "expires", "budget", "limits", "metadata"}
)
_LIMITS: Final = {
    "rpm": (1, RPM_MAX),
    "tpm": (1, TPM_MAX),
    "concurrency": (1, CONCURRENCY_MAX),
    "max_output_tokens": (1, OUTPUT_TOKENS_MAX),
    "max_choices": (1, CHOICES_MAX),
    "max_images": (0, IMAGES_MAX),
}
_CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "max_reasoning_effort": REASONING_EFFORTS,
    "without_redis": [without.value for without in WithoutBank],
}
_BUDGET: Final = frozenset({"usd", "per", "slack_usd"})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MODEL: Final = re.compile(r"[!-~]{1,200}")
_IN: Final = re.compile(r"([0-9]{1,5})([smhdwy])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_MODELS_MAX: Final = 200
_METADATA_MAX: Final = 50
_METADATA_CHARS: Final = 500
_MOMENT_MAX_NS: Final = 1 << 63
_USD_MAX: Final = Decimal(1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWish:
    """What a new key shall be; fields as in `VirtualKey`."""

    name: str
    team: str | None = None
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    data_class: DataClass = DataClass.ANY
    expires_ns: int | None = None
    budget: KeyBudget | None = None
    limits: KeyLimits | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_wish(body: Mapping[str, Any], *, now_ns: int) -> KeyWish:
    """Read what a new key shall be.

    Raises:
        InvalidRequest: `param` names the field.
    """
    return KeyWish(
        name=_name(body, "name", needed=True) or "",
        team=_name(body, "team"),
        models=_models(body),
        tiers=_tiers(body),
        data_class=_data_class(body),
        expires_ns=_expires_ns(body, now_ns),
        budget=_budget(body),
        limits=_limits(body),
        metadata=_metadata(body),
    )


def read_seconds(body: Mapping[str, Any], name: str, *, default: float) -> float:
    """Read a length of time: a number of seconds, or such as 24h."""
    given = body.get(name)
    if given is None:
        return default
    if type(given) in (int, float) and 0 <= given <= 31_536_000:
        return float(given)
    match = _IN.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise InvalidRequest(f"`{name}` must be a number of seconds, or such as 24h.", param=name)
    return float(int(match[1]) * _SECONDS[match[2]])


def key_object(key: VirtualKey) -> dict[str, Any]:
    """Give a key as it is shown: nothing of it opens anything."""
    budget = key.budget
    return {
        "name": key.name,
        "hint": key.hint,
        "team": key.team,
        "models": key.models,
        "tiers": key.tiers,
        "data": key.data_class.value,
        "budget": None
        if budget is None
        else {
            "usd": nanos_to_usd(budget.amount_nanos),
            "per": budget.per,
            "slack_usd": nanos_to_usd(budget.slack_nanos),
        },
        "limits": None if key.limits is None else asdict(key.limits),
        "metadata": dict(key.metadata),
        "created": time_text(key.created_ns),
        "expires": None if key.expires_ns is None else time_text(key.expires_ns),
        "revoked": None if key.revoked_ns is None else time_text(key.revoked_ns),
        "old_key_until": None if key.old_until_ns is None else time_text(key.old_until_ns),
    }


def _name(body: Mapping[str, Any], what: str, *, needed: bool = False) -> str | None:
    given = body.get(what)
    if given is None and not needed:
        return None
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise InvalidRequest(
            f"`{what}` must be 1 to 64 letters, digits, dots, dashes, underscores and @.", param=what
        )
    return given


def _models(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    given = body.get("models")
    if given is None:
        return None
    if not isinstance(given, list) or not 1 <= len(given) <= _MODELS_MAX:
        raise InvalidRequest(f"`models` must be a list of 1 to {_MODELS_MAX} names.", param="models")
    if not all(isinstance(name, str) and _MODEL.fullmatch(name) for name in given):
        raise InvalidRequest("`models` must be names of models; one may end with *.", param="models")
    return tuple(given)


def _tiers(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    given = body.get("tiers")
    if given is None:
        return None
    known = (Tier.PRIVATE.value, Tier.HOSTED.value)
    if not isinstance(given, list) or not given or not all(tier in known for tier in given):
        raise InvalidRequest("`tiers` must be a list of private and hosted.", param="tiers")
    return tuple(dict.fromkeys(given))


def _data_class(body: Mapping[str, Any]) -> DataClass:
    given = body.get("data", DataClass.ANY.value)
    try:
        return DataClass(given)
    except ValueError:
        raise InvalidRequest("`data` must be any or private-only.", param="data") from None


def _expires_ns(body: Mapping[str, Any], now_ns: int) -> int | None:
    given = body.get("expires")
    if given is None:
        return None
    match = _IN.fullmatch(given) if isinstance(given, str) else None
    if match is not None:
        expires_ns = now_ns + int(match[1]) * _SECONDS[match[2]] * 1_000_000_000
        return _checked(expires_ns, now_ns)
    try:
        moment = datetime.fromisoformat(str(given))
    except ValueError:
        said = "`expires` must be a moment, or how long it is good, such as 30d."
        raise InvalidRequest(said, param="expires") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _checked(int(moment.timestamp()) * 1_000_000_000, now_ns)


def _checked(expires_ns: int, now_ns: int) -> int:
    if not now_ns < expires_ns < _MOMENT_MAX_NS:
        raise InvalidRequest("`expires` must lie in the future, and before the year 2262.", param="expires")
    return expires_ns


def _budget(body: Mapping[str, Any]) -> KeyBudget | None:
    given = body.get("budget")
    if given is None:
        return None
    if not isinstance(given, Mapping) or not set(given) <= _BUDGET or "usd" not in given:
        raise InvalidRequest("`budget` must be an object of usd, per and slack_usd.", param="budget")
    per = given.get("per", Period.MONTH.value)
    if not isinstance(per, str) or per not in {period.value for period in Period}:
        raise InvalidRequest("`per` must be total, day, week or month.", param="budget")
    return KeyBudget(
        amount_nanos=_nanos(given["usd"]), per=per, slack_nanos=_nanos(given.get("slack_usd", 0))
    )


def _limits(body: Mapping[str, Any]) -> KeyLimits | None:
    given = body.get("limits")
    if given is None:
        return None
    if not isinstance(given, Mapping) or not set(given) <= {*_LIMITS, *_CHOICES}:
        said = f"`limits` must be an object of {', '.join([*_LIMITS, *_CHOICES])}."
        raise InvalidRequest(said, param="limits")
    found = {name: given[name] for name in given if given[name] is not None}
    for name, limit in found.items():
        _check_limit(name, limit)
    return KeyLimits.of(found) if found else None


def _check_limit(name: str, limit: object) -> None:
    if name in _CHOICES:
        is_good, what = limit in _CHOICES[name], f"one of {', '.join(_CHOICES[name])}"
    else:
        low, high = _LIMITS[name]
        is_good, what = type(limit) is int and low <= limit <= high, f"a whole number from {low} to {high}"
    if not is_good:
        raise InvalidRequest(f"`{name}` must be {what}; leave it out for no limit.", param="limits")


def _nanos(given: object) -> int:
    try:
        usd = Decimal(str(given)) if type(given) in (int, float, str, Decimal) else Decimal("NaN")
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not 0 <= usd <= _USD_MAX:
        raise InvalidRequest("`budget` must have amounts in USD.", param="budget")
    return usd_to_nanos(usd)


def _metadata(body: Mapping[str, Any]) -> dict[str, str]:
    given = body.get("metadata")
    if given is None:
        return {}
    if not isinstance(given, Mapping) or len(given) > _METADATA_MAX:
        said = f"`metadata` must be an object of at most {_METADATA_MAX} texts."
        raise InvalidRequest(said, param="metadata")
    for name, value in given.items():
        if not isinstance(value, str) or len(name) + len(value) > _METADATA_CHARS:
            raise InvalidRequest(
                f"`metadata` must hold texts of at most {_METADATA_CHARS} characters.", param="metadata"
            )
    return dict(given)

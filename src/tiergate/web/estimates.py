"""What a call would cost: at the model that is asked for, and beside it at all that could serve it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tiergate.catalog import Price
from tiergate.core import LOCAL, Caller, InvalidRequest, Target, Usage, nanos_to_usd
from tiergate.metering import Lines, Shape, bound, cost_parts, holds_only_text, shape_of
from tiergate.serve import ModelEntry, Rules, find_model
from tiergate.wire import MODEL_NAME_MAX, choices_asked, dumps, output_tokens_asked

_TOKENS_MAX: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What an estimate was asked for; `prompt_tokens` None: to be told from the messages, for each target."""

    model: str | None
    prompt_tokens: int | None
    cached_tokens: int
    completion_tokens: int
    service_tier: str | None
    body: Mapping[str, Any]
    shape: Shape | None
    prompt_bytes: int
    is_text: bool


def estimate(
    body: Mapping[str, Any], rules: Rules, lines: Lines, *, wall_ns: int, caller: Caller = LOCAL
) -> dict[str, Any]:
    """Answer `POST /v1/estimate-cost`.

    Args:
        body: `model` (optional), `prompt_tokens` or `messages`, `completion_tokens` or a limit of them,
            `cached_tokens` (optional). The body of a chat completion is one, too.
        rules: the models and prices in force.
        lines: what input tokens are expected.
        wall_ns: the moment that decides about prices, nanoseconds since 1970.
        caller: who asks; models that its key may not ask for are not there.

    Raises:
        InvalidRequest: a field that is missing, or cannot be; `param` names it.
        ModelNotFound: with the list.
    """
    asked = _read(body)
    first = None if asked.model is None else find_model(asked.model, rules, caller)
    rows = [
        _row(name, target, asked, rules, lines, wall_ns)
        for name, target in _could_serve(asked, first, rules, caller)
    ]
    against = None if first is None else rows[0]
    for row in rows:
        row["saving_usd"] = _saving(row, against)
    rows.sort(key=lambda row: (row["cost_usd"] is None, row["cost_usd"] or 0))
    return {
        "object": "cost_estimate",
        "completion_tokens": asked.completion_tokens,
        "cached_tokens": asked.cached_tokens,
        "against": None
        if against is None
        else {name: against[name] for name in ("model", "target", "cost_usd")},
        "data": rows,
    }


def _could_serve(
    asked: _Asked, first: ModelEntry | None, rules: Rules, caller: Caller
) -> Iterator[tuple[str, Target]]:
    """Give every model and target, those that were asked for first, each once."""
    seen = set()
    entries = [(asked.model, first)] if asked.model is not None and first is not None else []
    others = [(name, entry) for name, entry in rules.models.items() if caller.may_ask_for(name)]
    for name, entry in [*entries, *others]:
        for target in entry.targets:
            if (name, target.name) not in seen:
                seen.add((name, target.name))
                yield name, target


def _row(
    name: str, target: Target, asked: _Asked, rules: Rules, lines: Lines, wall_ns: int
) -> dict[str, Any]:
    price = rules.prices.find(target, wall_ns)
    row: dict[str, Any] = {"model": name, "target": target.name, "tier": target.tier.value}
    prompt, row["prompt_tokens_source"], row["error"] = asked.prompt_tokens, "given", None
    if prompt is None:
        assert asked.shape is not None
        expected = lines.expect(target.name, asked.shape)
        prompt = expected.input_tokens
        row["prompt_tokens_source"] = "expected" if asked.is_text else "expected_of_text_only"
        row["error"] = None if expected.error is None else round(expected.error, 4)
    row["prompt_tokens"] = prompt
    usage = Usage(
        input=max(0, prompt - asked.cached_tokens),
        cache_read=min(prompt, asked.cached_tokens),
        output=asked.completion_tokens,
    )
    row["cached_tokens"] = usage.cache_read
    context = rules.facts(target).context_tokens
    row["fits_context"] = None if context is None else prompt + asked.completion_tokens <= context
    parts = cost_parts(usage, price, service_tier=asked.service_tier, at_ns=wall_ns)
    return {
        **row,
        **price_object(price),
        "input_usd": None if parts is None else nanos_to_usd(parts.input_nanos),
        "cached_input_usd": None if parts is None else nanos_to_usd(parts.cached_nanos),
        "output_usd": None if parts is None else nanos_to_usd(parts.output_nanos),
        "fee_usd": None if parts is None else nanos_to_usd(parts.fee_nanos),
        "cost_usd": None if parts is None else nanos_to_usd(parts.total_nanos),
        "bound_usd": _bound_usd(asked, price),
    }


def _bound_usd(asked: _Asked, price: Price) -> Any:
    """Give the most that a question can cost; of typed numbers there is none, since they are the truth."""
    if asked.prompt_tokens is not None:
        return None
    worst = bound(
        asked.body,
        prompt_bytes=asked.prompt_bytes,
        output_tokens=asked.completion_tokens,
        choices=1,
        price=price,
    )
    return None if worst.nanos is None else nanos_to_usd(worst.nanos)


def price_object(price: Price) -> dict[str, Any]:
    """Say what is known of a price: its state, and where there is one its record, source and rates."""
    said: dict[str, Any] = {"price": price.state.value}
    record = price.record
    if record is None:
        return said
    said["price_id"], said["price_source"] = record.id, record.source
    said["price_checked"] = None if record.checked is None else record.checked.isoformat()
    said["usd_per_1m"] = record.rates.named()
    if record.standard.above:
        said["usd_per_1m_above"] = [
            {"input_tokens": tokens, **rates.named()} for tokens, rates in record.standard.above
        ]
    if record.hours:
        said["usd_per_1m_hours"] = [
            {"hours": str(hours), **hours.tariff.rates.named()} for hours in record.hours
        ]
    if record.service_tiers:
        said["usd_per_1m_tiers"] = {
            name: tariff.rates.named() for name, tariff in record.service_tiers.items()
        }
    if record.usd_per_request:
        said["usd_per_request"] = record.usd_per_request
    return said


def _saving(row: Mapping[str, Any], against: Mapping[str, Any] | None) -> Any:
    if against is None or against["cost_usd"] is None or row["cost_usd"] is None:
        return None
    return against["cost_usd"] - row["cost_usd"]


def _read(body: Mapping[str, Any]) -> _Asked:
    prompt, cached = _count(body, "prompt_tokens"), _count(body, "cached_tokens") or 0
    messages = body.get("messages")
    if prompt is None and (not isinstance(messages, list) or not messages):
        raise InvalidRequest(
            "Give `prompt_tokens`, or `messages` (a list with at least one) to tell them from.",
            param="prompt_tokens" if messages is None else "messages",
        )
    if prompt is not None and cached > prompt:
        raise InvalidRequest(
            "`cached_tokens` is a part of `prompt_tokens` and cannot be more.", param="cached_tokens"
        )
    tier = body.get("service_tier")
    is_told = prompt is None
    return _Asked(
        model=_model(body),
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=_completion(body),
        service_tier=None if not isinstance(tier, str) or tier == "auto" else tier,
        body=body,
        # Once for all targets: it takes 0.2 ms a kilobyte.
        shape=shape_of(body) if is_told else None,
        prompt_bytes=len(dumps(body)) if is_told else 0,
        is_text=is_told and holds_only_text(body),
    )


def _model(body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    if model is None:
        return None
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` must be the name of a model, or be left out.", param="model")
    if len(model) > MODEL_NAME_MAX:
        raise InvalidRequest(f"`model` is longer than {MODEL_NAME_MAX} characters.", param="model")
    return model


def _completion(body: Mapping[str, Any]) -> int:
    completion, limit = _count(body, "completion_tokens"), output_tokens_asked(body)
    if completion is not None:
        return completion
    if limit is None:
        raise InvalidRequest(
            "Give `completion_tokens`, or a limit of them as `max_tokens`.", param="completion_tokens"
        )
    return _counted(limit, "max_tokens") * max(1, choices_asked(body))


def _count(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    return None if value is None else _counted(value, name)


def _counted(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value <= _TOKENS_MAX:
        raise InvalidRequest(f"`{name}` must be a whole number from 0 to {_TOKENS_MAX}.", param=name)
    return value

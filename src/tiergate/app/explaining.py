"""`tiergate explain`: where a call would go and why, and what its provider would be told."""

from collections.abc import Mapping
from typing import Any

from tiergate.app.administering import administered
from tiergate.app.table import shown
from tiergate.config import Loaded, fill
from tiergate.core import DataClass, SystemClock, Target, Tier
from tiergate.routing import route
from tiergate.serve import ModelEntry, Rules, find_model
from tiergate.store import find_owner
from tiergate.wire import dumps

_MODEL, _USAGE = "model", "stream_options.include_usage"


async def explain(
    loaded: Loaded, environ: Mapping[str, str], model: str, *, private_only: bool, as_json: bool
) -> None:
    """Print it.

    Raises:
        ModelNotFound: there is no such model.
    """
    rules = fill.rules(loaded.settings, generation=1)
    entry = find_model(model, rules)
    live = await _live(loaded, environ)
    told = _told(loaded, rules, model, entry, live, private_only=private_only)
    if as_json:
        print(dumps(told).decode())
    else:
        _print(told)


async def _live(loaded: Loaded, environ: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]] | None:
    """Give the state of each provider in the gateway that runs; None: none does."""
    if find_owner(loaded.settings.data_dir) is None:
        return None
    async with administered(loaded, environ) as ask:
        return {row["provider"]: row for row in (await ask("/api/targets", None))["data"]}


def _told(
    loaded: Loaded,
    rules: Rules,
    model: str,
    entry: ModelEntry,
    live: Mapping[str, Mapping[str, Any]] | None,
    *,
    private_only: bool,
) -> dict[str, Any]:
    data_class = DataClass.PRIVATE_ONLY if private_only else DataClass.ANY
    way = route(entry.targets, policy=entry.policy, data_class=data_class)
    policy = entry.cache
    return {
        "model": model,
        "policy": entry.policy.value,
        "data": data_class.value,
        "gateway_runs": live is not None,
        "targets": [
            {
                "target": step.target.name,
                "tier": step.target.tier.value,
                "used": step.used,
                "reason": step.reason,
                "state": None if live is None else _state(live.get(step.target.provider), step.target),
                "price": _price(rules, step.target),
                "limits": _limits(loaded, step.target),
                "sends": _sent(loaded, rules, step.target.provider),
            }
            for step in way.steps
        ],
        "cache": {
            "when": policy.when.value,
            "ttl_s": policy.ttl_s,
            "stale_if_error_s": policy.stale_if_error_s,
            "tool_calls": policy.keep_tool_calls,
            "keep": loaded.settings.cache.exact.keep,
            "dry_run": loaded.settings.cache.dry_run,
        },
        "attempts": rules.retry.attempts,
        "total_s": rules.retry.total_s,
        "stream_total_s": rules.retry.stream_total_s,
    }


def _state(row: Mapping[str, Any] | None, target: Target) -> str:
    """Say what is known of a target now, by its own breaker and those of its provider."""
    if row is None:
        return "not in the gateway that runs: reload it"
    own = [one for one in row["models"] if one["model"] == target.model]
    for part, breaker in (*row["breakers"].items(), *(("model", one) for one in own)):
        if breaker["state"] != "closed":
            because = f" ({breaker['because']})" if breaker["because"] else ""
            return f"left alone: {part} {breaker['state']}{because}"
    if any(one["throttled_s"] for one in own):
        return "asked to be left alone for a moment"
    limit = "" if row["limit"] is None else f" of {row['limit']}"
    return f"asked; {row['in_flight']}{limit} in flight, {row['waiting']} waiting"


def _sent(loaded: Loaded, rules: Rules, provider: str) -> list[str]:
    """Name the fields that are set or added on the way to a provider."""
    asks = fill.providers(loaded.settings)[provider].takes_stream_options
    hints = sorted(hint.value for hint in rules.hints.get(provider, ()))
    return [_MODEL, *([_USAGE] if asks else []), *hints]


def _price(rules: Rules, target: Target) -> str:
    if target.tier is Tier.PRIVATE:
        return "owned"
    record = rules.prices.find(target, SystemClock().wall_ns()).record
    return "unknown" if record is None else record.id


def _limits(loaded: Loaded, target: Target) -> dict[str, Any]:
    return loaded.settings.providers[target.provider].limits.model_dump(
        exclude_none=True, exclude={"without_redis"}
    )


def _print(told: Mapping[str, Any]) -> None:
    print(f"{shown(told['model']).plain}: {told['policy']}, data {told['data']}")
    for place, target in enumerate(told["targets"], start=1):
        used = "" if target["used"] else "  LEFT OUT"
        print(f"{place}. {shown(target['target']).plain} ({target['tier']}){used}")
        print(f"   why:    {target['reason']}")
        if target["state"] is not None:
            print(f"   now:    {shown(target['state']).plain}")
        print(f"   price:  {target['price']}")
        if target["limits"]:
            print("   limits: " + ", ".join(f"{name} {value}" for name, value in target["limits"].items()))
        print(f"   sent beside the caller's own fields: {', '.join(target['sends'])}")
    cache = told["cache"]
    if cache["dry_run"]:
        print("cache: a dry run; nothing is kept or given")
    elif cache["when"] == "never":
        print("cache: no answer is kept")
    else:
        print(
            f"cache: {cache['when']}, kept in {cache['keep']}, fresh for {cache['ttl_s']:g} s, and given for "
            f"{cache['stale_if_error_s']:g} s more if every target fails"
        )
    print(
        f"at most {told['attempts']} attempts, {told['total_s']:g} s in all, as a stream "
        f"{told['stream_total_s']:g} s"
    )
    if not told["gateway_runs"]:
        print("No gateway runs with this data folder, so nothing is said of now.")

"""`tiergate targets`: who is asked, who is left alone and why, in the gateway that runs."""

from collections.abc import Mapping
from typing import Any

from tiergate.app.administering import administered, check_running
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.wire import dumps


async def list_targets(loaded: Loaded, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Print the state of every provider and of its models.

    Raises:
        CannotStart: no gateway runs.
    """
    check_running(loaded, "who is left alone")
    async with administered(loaded, environ) as ask:
        answer = await ask("/api/targets", None)
    if as_json:
        print(dumps(answer).decode())
        return
    table = plain_table("target", "tier", "state", "last failure", right=("in flight", "waiting", "left"))
    for row in answer["data"]:
        state, because = _provider_state(row)
        table.add_row(
            shown(row["provider"]),
            row["tier"],
            state,
            shown(because),
            str(row["in_flight"]),
            str(row["waiting"]),
            "",
        )
        for model in row["models"]:
            name = f"{row['provider']}/{model['model']}"
            left = _left(row["learned_rates"].get(model["model"], {}))
            said = shown(model["because"] or "")
            table.add_row(shown(name), row["tier"], _state(model), said, "", "", left)
    print_table(table)


async def change_target(
    loaded: Loaded, environ: Mapping[str, str], target: str, how: str, *, as_json: bool
) -> None:
    """Isolate or restore a target, or all of a provider; `how` is `isolate` or `restore`.

    Raises:
        CannotStart: no gateway runs.
    """
    check_running(loaded, "who is left alone")
    async with administered(loaded, environ) as ask:
        row = await ask(f"/api/targets/{how}", {"target": target})
    if as_json:
        print(dumps(row).decode())
    elif how == "isolate":
        print(f"{target} is left alone until `tiergate targets restore {target}`, or until a restart.")
    else:
        print(f"{target} is asked again.")


def _provider_state(row: Mapping[str, Any]) -> tuple[str, str]:
    """Give the state of a provider's servers and of its credential, whichever says more."""
    breakers = [(part, breaker) for part, breaker in row["breakers"].items() if breaker["state"] != "closed"]
    if not breakers:
        return "closed", ""
    part, breaker = breakers[0]
    return f"{part} {_state(breaker)}", breaker["because"] or ""


def _left(rates: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what a model's own answers say is left: `59 of 60 requests`."""
    parts = []
    for what, rate in rates.items():
        of_all = "" if rate["limit"] is None else f" of {rate['limit']:.0f}"
        parts.append(f"{rate['left']:.0f}{of_all} {what.replace('_', ' ')}")
    return ", ".join(parts)


def _state(breaker: Mapping[str, Any]) -> str:
    if breaker.get("throttled_s"):
        return f"throttled for {breaker['throttled_s']:.0f} s"
    wait_s = breaker["wait_s"]
    return f"{breaker['state']} for {wait_s:.0f} s" if wait_s else str(breaker["state"])

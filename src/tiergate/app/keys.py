"""`tiergate keys`: virtual keys, through whoever owns the ledger."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tiergate.app.administering import administered
from tiergate.app.moments import clock_text, zoned_text
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.wire import dumps


async def create_key(
    loaded: Loaded, environ: Mapping[str, str], body: Mapping[str, Any], *, as_json: bool
) -> None:
    """Make a key and print it."""
    given = {name: value for name, value in body.items() if value is not None}
    async with administered(loaded, environ) as ask:
        made = await ask("/api/keys", given)
    _print_made(made, loaded.settings.timezone, as_json=as_json)
    if not as_json and loaded.settings.auth == "open":
        print("note: `auth: open` lets everybody on this machine call; `auth: keys` asks for keys.")


async def change_key(
    loaded: Loaded, environ: Mapping[str, str], name: str, how: str, body: Mapping[str, Any], *, as_json: bool
) -> None:
    """Rotate or revoke a key and print what there is of it; `how` is `rotate` or `revoke`."""
    async with administered(loaded, environ) as ask:
        changed = await ask(f"/api/keys/{quote(name, safe='')}/{how}", body)
    if how == "rotate" or as_json:
        _print_made(changed, loaded.settings.timezone, as_json=as_json)
    else:
        print(f"The key {name} is revoked.")


async def list_keys(loaded: Loaded, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Print all keys."""
    async with administered(loaded, environ) as ask:
        answer = await ask("/api/keys", None)
    if as_json:
        print(dumps(answer).decode())
        return
    if not answer["data"]:
        print("No keys were made yet: tiergate keys create NAME. Those of the settings are not listed here.")
        return
    zone = loaded.settings.timezone
    table = plain_table(
        "name", "key", "team", "models", "tiers", "budget", "limits", f"created ({zone})", "state"
    )
    for key in answer["data"]:
        budget = key["budget"]
        table.add_row(
            shown(key["name"]),
            key["hint"],
            shown(key["team"] or "-"),
            shown(", ".join(key["models"] or ["all"])),
            ", ".join(key["tiers"] or ["all"]) + (", private data" if key["data"] != "any" else ""),
            "-" if budget is None else f"${budget['usd']:f} {_per(budget['per'])}",
            _limits(key["limits"] or {}),
            clock_text(key["created"], zone)[:10],
            _state(key, zone),
        )
    print_table(table)


def _print_made(made: Mapping[str, Any], zone: str, *, as_json: bool) -> None:
    if as_json:
        print(dumps(made).decode())
        return
    print(made["key"])
    until = made["old_key_until"]
    if until is not None:
        print(f"The old key is good until {zoned_text(until, zone)}.")
    print("It is shown this once and kept nowhere. Callers send it as Authorization: Bearer KEY.")


def _per(per: str) -> str:
    return "in total" if per == "total" else f"per {per}"


def _limits(limits: Mapping[str, int | str | None]) -> str:
    """Write limits short, such as `60 rpm, 4 at once, at most 1000 tokens out`."""
    words = {
        "rpm": "{} rpm",
        "tpm": "{} tpm",
        "concurrency": "{} at once",
        "max_output_tokens": "at most {} tokens out",
        "max_choices": "at most {} choices",
        "max_images": "at most {} pictures",
        "max_reasoning_effort": "at most {} effort",
        "without_redis": "{} without Redis",
    }
    given = [word.format(limits[name]) for name, word in words.items() if limits.get(name) is not None]
    return ", ".join(given) or "-"


def _state(key: Mapping[str, Any], zone: str) -> str:
    if key["revoked"] is not None:
        return f"revoked {clock_text(key['revoked'], zone)[:10]}"
    expires = key["expires"]
    if expires is None:
        return "good"
    is_over = datetime.fromisoformat(expires) <= datetime.now(UTC)
    return f"{'expired' if is_over else 'expires'} {clock_text(expires, zone)[:16]}"

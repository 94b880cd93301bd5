"""The admin plane: what is spent, what happened, what to do about it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tiergate.admin.desk import Desk
from tiergate.admin.guard import Guard
from tiergate.admin.keys import KNOWN, key_object, read_seconds, read_wish
from tiergate.admin.objects import budget_object, entry_object
from tiergate.core import Emit, InvalidRequest, StorageUnavailable, TiergateError, nanos_to_usd, usd_to_nanos
from tiergate.ledger import EntryQuery, HoldState
from tiergate.reports import groups_of, span_object, span_of, spend, spend_object
from tiergate.wire import dumps, loads, write_error

_LIMIT_MAX: Final = 1_000
_LIMIT: Final = 100
_USD_MAX: Final = Decimal(1_000_000)
_REASON_CHARS: Final = 500
_TARGET_CHARS: Final = 300


def admin_plane(desk: Desk, *, emit: Emit, token: str, hosts: frozenset[str]) -> Guard:
    """Build the admin plane as an ASGI application.

    Args:
        desk: what it works with.
        emit: is told of requests that its door refuses.
        token: what opens it.
        hosts: names that it may be called by.
    """
    plane = _Plane(desk)
    routes = [
        Route("/api/budgets", _answered(plane.budgets), methods=["GET"]),
        Route("/api/usage", _answered(plane.usage), methods=["GET"]),
        Route("/api/entries", _answered(plane.entries), methods=["GET"]),
        Route("/api/entries/{call_id}", _answered(plane.entry), methods=["GET"]),
        Route("/api/entries/{call_id}/resolve", _answered(plane.resolve), methods=["POST"]),
        Route("/api/entries/{call_id}/adjust", _answered(plane.adjust), methods=["POST"]),
        Route("/api/keys", _answered(plane.keys), methods=["GET"]),
        Route("/api/keys", _answered(plane.create_key), methods=["POST"]),
        Route("/api/keys/{name}/revoke", _answered(plane.revoke_key), methods=["POST"]),
        Route("/api/keys/{name}/rotate", _answered(plane.rotate_key), methods=["POST"]),
        Route("/api/targets", _answered(plane.targets), methods=["GET"]),
        Route("/api/targets/isolate", _answered(plane.isolate), methods=["POST"]),
        Route("/api/targets/restore", _answered(plane.restore), methods=["POST"]),
        Route("/api/cache", _answered(plane.cache), methods=["GET"]),
        Route("/api/cache/purge", _answered(plane.purge), methods=["POST"]),
        Route("/api/erase", _answered(plane.erase), methods=["POST"]),
        Route("/api/config", _answered(plane.config), methods=["GET"]),
        Route("/api/reload", _answered(plane.reload), methods=["POST"]),
        Route("/metrics", plane.metrics, methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})
    return Guard(app, emit=emit, token=token, hosts=hosts)


class NotThere(TiergateError):
    """There is no call of that id, or no key of that name, or it cannot be changed so."""

    code = "not_found"


class AlreadySettled(TiergateError):
    """The attempt is not lapsed: somebody settled it, or it never was."""

    code = "already_settled"


class _Plane:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def budgets(self, request: Request) -> Any:
        return _listed([budget_object(balance) for balance in await self._desk.balances()])

    async def usage(self, request: Request) -> Any:
        """Answer as `tiergate report spend --json` does."""
        asked = request.query_params
        by = groups_of(asked.get("by", "model,target"))
        span = span_of(
            asked.get("from", "30d"),
            asked.get("to"),
            zone=self._desk.zone(),
            now_ns=self._desk.wall_ns(),
        )
        rows = await asyncio.to_thread(spend, await self._desk.past(), span, by)
        total = sum(row.cash_nanos for row in rows)
        return {
            **span_object(span),
            "total_usd": nanos_to_usd(total),
            "unpriced_attempts": sum(row.unpriced for row in rows),
            "rows": [spend_object(row) for row in rows],
        }

    async def entries(self, request: Request) -> Any:
        query = _query(request.query_params, now_ns=self._desk.wall_ns(), zone=self._desk.zone())
        found = await self._desk.find(query)
        following = found[-1].call_id if len(found) == query.limit else None
        return _listed([entry_object(entry) for entry in found], following=following)

    async def entry(self, request: Request) -> Any:
        return await self._entry(request.path_params["call_id"])

    async def resolve(self, request: Request) -> Any:
        """Settle a lapsed attempt."""
        call_id, body = request.path_params["call_id"], await _body(request, {"attempt", "cost_usd"})
        n, cost_nanos = _attempt(body), _nanos(body, "cost_usd", least=Decimal(0))
        if not await self._desk.resolve(call_id, n, cost_nanos):
            raise _not_lapsed(await self._entry(call_id), n)
        return await self._entry(call_id)

    async def adjust(self, request: Request) -> Any:
        """Correct what a settled attempt cost."""
        known = {"attempt", "delta_usd", "reason"}
        call_id, body = request.path_params["call_id"], await _body(request, known)
        n, delta_nanos = _attempt(body), _nanos(body, "delta_usd", least=-_USD_MAX)
        reason = body.get("reason")
        if not isinstance(reason, str) or not reason.strip() or len(reason) > _REASON_CHARS:
            raise InvalidRequest(
                f"`reason` must say why, in at most {_REASON_CHARS} characters.", param="reason"
            )
        if not await self._desk.adjust(call_id, n, delta_nanos, reason):
            raise NotThere(f"The call {call_id[:64]} has no settled attempt {n} that cost so much.")
        return await self._entry(call_id)

    async def keys(self, request: Request) -> Any:
        return _listed([key_object(key) for key in self._desk.list_keys()])

    async def create_key(self, request: Request) -> Any:
        """Make a key; this answer is the only place where it is ever shown."""
        wish = read_wish(await _body(request, set(KNOWN)), now_ns=self._desk.wall_ns())
        key, secret = await self._desk.create_key(wish)
        return {**key_object(key), "key": secret}

    async def revoke_key(self, request: Request) -> Any:
        await _body(request, set())
        name = request.path_params["name"]
        if not await self._desk.revoke_key(name):
            raise NotThere(f"There is no key {name[:64]!r} in use.")
        return self._key(name)

    async def rotate_key(self, request: Request) -> Any:
        """Give a key another secret, shown in this answer only."""
        name, body = request.path_params["name"], await _body(request, {"grace"})
        made = await self._desk.rotate_key(name, read_seconds(body, "grace", default=0))
        if made is None:
            raise NotThere(f"There is no key {name[:64]!r} in use.")
        return {**self._key(name), "key": made[1]}

    def _key(self, name: str) -> dict[str, Any]:
        return next(key_object(key) for key in self._desk.list_keys() if key.name == name)

    async def targets(self, request: Request) -> Any:
        return _listed(list(self._desk.targets()))

    async def isolate(self, request: Request) -> Any:
        """Leave a target, or all of a provider, alone until it is restored."""
        return await self._by_hand(request, self._desk.isolate)

    async def restore(self, request: Request) -> Any:
        """Ask it again at once, whatever was before."""
        return await self._by_hand(request, self._desk.restore)

    async def _by_hand(self, request: Request, do: Callable[[str, str], bool]) -> Any:
        name = (await _body(request, {"target"})).get("target")
        if not isinstance(name, str) or not 1 <= len(name) <= _TARGET_CHARS:
            raise InvalidRequest("`target` must be provider/model, or a provider alone.", param="target")
        provider, _, model = name.partition("/")
        if not do(provider, model):
            raise NotThere(f"There is no provider {provider[:64]!r} in the settings.")
        return next(row for row in self._desk.targets() if row["provider"] == provider)

    async def cache(self, request: Request) -> Any:
        return self._desk.cache()

    async def purge(self, request: Request) -> Any:
        """Delete kept answers: of a team, of a key without one, of a model, or all."""
        body = await _body(request, {"team", "key", "model", "all"})
        named = {name: _name_or_none(body, name) for name in ("team", "key", "model")}
        if (body.get("all") is True) is any(value is not None for value in named.values()):
            raise InvalidRequest(
                "Say whose answers: `team`, or `key` for a key without a team, `model`, or both of one of "
                "these and `model`; or `all: true` for everything.",
                param="all",
            )
        if named["team"] is not None and named["key"] is not None:
            raise InvalidRequest(
                "The answers of a key that has a team are the team's: name one.", param="key"
            )
        return {"purged": await self._desk.purge(named["team"], named["key"], named["model"])}

    async def erase(self, request: Request) -> Any:
        """Delete all text that is kept of a team, or of a key without one, and unlink its hashes."""
        body = await _body(request, {"team", "key"})
        team, key = _name_or_none(body, "team"), _name_or_none(body, "key")
        if (team is None) is (key is None):
            raise InvalidRequest("Say whose: `team`, or `key` for a key without a team.", param="team")
        return {"erased": True, **(await self._desk.erase(team, key))}

    async def config(self, request: Request) -> Any:
        return self._desk.settings()

    async def reload(self, request: Request) -> Any:
        """Read the settings again; refused ones leave the old in force."""
        await _body(request, set())
        if not await self._desk.reload():
            raise InvalidRequest("The settings were refused and the old ones stay; the log says why.")
        return {"reloaded": True}

    async def metrics(self, request: Request) -> Response:
        page = await self._desk.metrics()
        return Response(page, media_type="text/plain; version=1.0.0; charset=utf-8; escaping=underscores")

    async def _entry(self, call_id: str) -> Any:
        # The ids of calls sort, so the newest one that is not after this one is this one.
        found = await self._desk.find(EntryQuery(before=f"{call_id}~", limit=1))
        if not found or found[0].call_id != call_id:
            raise NotThere(f"There is no call {call_id[:64]} in the ledger.")
        return entry_object(found[0])


def _not_lapsed(entry: Mapping[str, Any], n: int) -> TiergateError:
    """Say why an attempt cannot be resolved, and what can be done with it."""
    attempts = {attempt["n"]: attempt for attempt in entry["attempts"]}
    what = f"Attempt {n} of the call {entry['id']}"
    if n not in attempts:
        return NotThere(f"The call {entry['id']} has no lapsed attempt {n}.")
    match attempts[n]["state"]:
        case HoldState.SETTLED:
            cost = attempts[n]["cost_usd"]
            amount = "at an unknown cost" if cost is None else f"with ${cost:f}"
            said = f"{what} was already settled, {amount}. `adjust` changes what is settled."
        case HoldState.RELEASED:
            said = f"{what} was released: it was never delivered, and cost nothing."
        case _:
            said = f"{what} has not lapsed: it is still under way, and will be settled when it ends."
    return AlreadySettled(said)


def _answered(ask: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return Response(dumps(await ask(request)), media_type="application/json")
        except TiergateError as error:
            return _error(error)

    return answer


def _error(error: TiergateError) -> Response:
    match error:
        case InvalidRequest():
            status, kind = 400, "invalid_request_error"
        case NotThere():
            status, kind = 404, "invalid_request_error"
        case AlreadySettled():
            status, kind = 409, "invalid_request_error"
        case StorageUnavailable():
            status, kind = 503, "server_error"
        case _:
            status, kind = 500, "server_error"
    param = error.param if isinstance(error, InvalidRequest) else None
    body = write_error(str(error), type=kind, code=error.code, param=param)
    return Response(body, status_code=status, media_type="application/json")


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "with this method" if status == 405 else "on the admin plane"
    body = write_error(f"There is no such endpoint {what}.", type="invalid_request_error", code="not_found")
    return Response(body, status_code=status, media_type="application/json")


def _listed(rows: list[Any], *, following: str | None = None) -> dict[str, Any]:
    return {"data": rows, "next": following}


def _query(asked: Mapping[str, str], *, now_ns: int, zone: str) -> EntryQuery:
    known = {"after", "limit", "key", "team", "tag", "model", "batch", "state", "from"}
    unknown = sorted(set(asked) - known)
    if unknown:
        raise InvalidRequest(
            f"{unknown[0][:64]!r} is no filter. There are: {', '.join(sorted(known))}.", param=unknown[0][:64]
        )
    limit = asked.get("limit", str(_LIMIT))
    if not limit.isdecimal() or not 1 <= int(limit) <= _LIMIT_MAX:
        raise InvalidRequest(f"`limit` must be a whole number from 1 to {_LIMIT_MAX}.", param="limit")
    state = asked.get("state")
    if state not in (None, "lapsed"):
        raise InvalidRequest("`state` can only be lapsed.", param="state")
    since = asked.get("from")
    return EntryQuery(
        before=asked.get("after"),
        since_ns=0 if since is None else span_of(since, None, zone=zone, now_ns=now_ns).start_ns,
        limit=int(limit),
        key=asked.get("key"),
        team=asked.get("team"),
        tag=asked.get("tag"),
        model=asked.get("model"),
        job=asked.get("batch"),
        is_lapsed=state == "lapsed",
    )


async def _body(request: Request, known: set[str]) -> dict[str, Any]:
    """Read a JSON object with no other fields than these."""
    data = await request.body()
    try:
        body = loads(data) if data else {}
    except ValueError as error:
        raise InvalidRequest("The body is not JSON.") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    unknown = sorted(set(body) - known)
    if unknown:
        raise InvalidRequest(f"{unknown[0][:64]!r} is no field of this.", param=unknown[0][:64])
    return body


def _name_or_none(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not (isinstance(value, str) and 1 <= len(value) <= _TARGET_CHARS):
        raise InvalidRequest(f"`{name}` must be a name.", param=name)
    return value


def _attempt(body: Mapping[str, Any]) -> int:
    n = body.get("attempt", 1)
    if type(n) is not int or not 1 <= n <= 100:
        raise InvalidRequest("`attempt` must be the number of an attempt, from 1.", param="attempt")
    return n


def _nanos(body: Mapping[str, Any], name: str, *, least: Decimal) -> int:
    given = body.get(name)
    try:
        usd = Decimal(str(given)) if type(given) in (int, float, str, Decimal) else Decimal("NaN")
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not least <= usd <= _USD_MAX:
        raise InvalidRequest(f"`{name}` must be an amount in USD.", param=name)
    return usd_to_nanos(usd)

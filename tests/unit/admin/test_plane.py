"""The admin plane over a book in memory: who may ask, what it answers, and what it refuses."""

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import pytest

from contract.ledger_records import BEGAN_NS, closed, held, opened, released, settled
from tiergate.admin import Desk, KeyWish, admin_plane
from tiergate.admin.guard import Guard
from tiergate.admission import VirtualKey
from tiergate.core import Caller, Event, Notice, Refusal
from tiergate.ledger import Ceiling, Period, Scope, SoleBook
from tiergate.testing import MemoryJournal
from tiergate.wire import dumps, loads

TOKEN = "admin-token-0123456789"
USD = 1_000_000_000
ROUTES = {
    "GET": [
        "/api/budgets",
        "/api/usage",
        "/api/entries",
        "/api/entries/x",
        "/api/keys",
        "/api/targets",
        "/api/cache",
        "/api/config",
        "/metrics",
    ],
    "POST": [
        "/api/entries/x/resolve",
        "/api/entries/x/adjust",
        "/api/keys",
        "/api/keys/x/revoke",
        "/api/keys/x/rotate",
        "/api/targets/isolate",
        "/api/targets/restore",
        "/api/cache/purge",
        "/api/erase",
        "/api/reload",
    ],
}


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


class Plane:
    """The plane with a book of three calls behind it."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.book = SoleBook(
            self.journal,
            ceilings=[
                Ceiling(scope=Scope.ALL, amount_nanos=10 * USD, period=Period.MONTH, slack_nanos=USD),
                Ceiling(scope=Scope.KEY, name="alice", amount_nanos=USD),
            ],
        )
        self.reloads = 0
        self.keys: list[VirtualKey] = []
        self.by_hand: list[tuple[str, str, str]] = []
        self.purged: list[tuple[str | None, str | None, str | None]] = []

        async def reload() -> bool:
            self.reloads += 1
            return self.reloads == 1

        async def metrics() -> bytes:
            return b"tiergate_calls_total 1\n"

        desk = Desk(
            balances=lambda: self.book.balances(BEGAN_NS),
            find=self.journal.find,
            resolve=self.book.resolve,
            adjust=self.book.adjust,
            past=self._no_past,
            zone=lambda: "UTC",
            list_keys=lambda: self.keys,
            create_key=self._create,
            revoke_key=self._revoke,
            rotate_key=self._rotate,
            targets=lambda: [{"provider": "rack"}],
            isolate=lambda provider, model: self._by_hand("isolate", provider, model),
            restore=lambda provider, model: self._by_hand("restore", provider, model),
            cache=lambda: {"answers": 7},
            purge=self._purge,
            erase=self._erase,
            settings=lambda: {"listen": "127.0.0.1:4400"},
            reload=reload,
            metrics=metrics,
            wall_ns=lambda: BEGAN_NS,
        )
        self.events: list[Event] = []
        hosts = frozenset({"localhost", "[::1]"})
        self.app = admin_plane(desk, emit=self.events.append, token=TOKEN, hosts=hosts)

    async def _purge(self, team: str | None, key: str | None, model: str | None) -> int:
        self.purged.append((team, key, model))
        return 3

    async def _erase(self, team: str | None, key: str | None) -> dict[str, int]:
        self.purged.append((team, key, "erased"))
        return {"receipts": 4, "batches": 2, "files": 3}

    async def _create(self, wish: KeyWish) -> tuple[VirtualKey, str]:
        key = VirtualKey(
            name=wish.name,
            digest=b"d",
            hint="tg-…abcd",
            created_ns=0,
            models=wish.models,
            limits=wish.limits,
        )
        self.keys.append(key)
        return key, "tg-secret"

    async def _revoke(self, name: str) -> bool:
        return any(key.name == name for key in self.keys)

    def _by_hand(self, what: str, provider: str, model: str) -> bool:
        if provider == "rack":
            self.by_hand.append((what, provider, model))
        return provider == "rack"

    async def _rotate(self, name: str, grace_s: float) -> tuple[VirtualKey, str] | None:
        found = [key for key in self.keys if key.name == name]
        return (found[0], f"tg-new-{grace_s:g}") if found else None

    async def _no_past(self) -> Any:
        raise AssertionError("reports are tried with a real ledger")

    async def fill(self) -> None:
        for number, key in ((1, "alice"), (2, "bob"), (3, "alice")):
            begun = opened(number, caller=Caller(key=key))
            await self.book.hold(held(number, opened=begun, bound_nanos=USD // 4))
            if number < 3:
                self.book.settle(settled(number, cash_nanos=USD // 10))
                self.book.close(closed(number, opened=begun))

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Sequence[tuple[bytes, bytes]] | None = None,
        body: bytes = b"{}",
    ) -> Answer:
        if headers is None:
            headers = [
                (b"host", b"localhost:4401"),
                (b"authorization", f"Bearer {TOKEN}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
        place, _, query = path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": place,
            "raw_path": place.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": list(headers),
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:]))


def ask(path: str, **how: Any) -> Answer:
    async def one() -> Answer:
        plane = Plane()
        await plane.fill()
        return await plane.ask(path, **how)

    return asyncio.run(one())


def test_budgets_say_what_is_spent_held_and_left() -> None:
    """In USD, with their windows."""
    month, key = ask("/api/budgets").json["data"]
    assert (month["scope"], month["per"], month["usd"], month["slack_usd"]) == ("all", "month", 10, 1)
    assert (month["spent_usd"], month["held_usd"], month["left_usd"]) == (0.2, 0.25, 10.55)
    assert month["window_start"] == "2026-01-01T00:00:00.000Z"
    assert month["window_end"] == "2026-02-01T00:00:00.000Z"
    assert (key["scope"], key["per"], key["window_end"], key["spent_usd"]) == (
        "key:alice",
        "total",
        None,
        0.1,
    )


def test_entries_are_listed_newest_first_page_by_page() -> None:
    """With filters, and a cursor while there may be more."""
    everything = ask("/api/entries").json
    assert [entry["key"] for entry in everything["data"]] == ["alice", "bob", "alice"]
    assert everything["next"] is None
    newest = everything["data"][0]
    assert (newest["end"], newest["attempts"][0]["state"]) == (None, "held")
    first = ask("/api/entries?limit=2").json
    rest = ask(f"/api/entries?limit=2&after={first['next']}").json
    assert [entry["id"] for entry in first["data"] + rest["data"]] == [
        entry["id"] for entry in everything["data"]
    ]
    assert [entry["key"] for entry in ask("/api/entries?key=bob").json["data"]] == ["bob"]
    assert ask("/api/entries?model=nothing").json == {"data": [], "next": None}


def test_one_entry_with_its_usage_and_cost() -> None:
    """The sums beside the buckets."""
    call_id = opened(2).call.id
    entry = ask(f"/api/entries/{call_id}").json
    assert (entry["id"], entry["cost_usd"], entry["end"]) == (call_id, 0.1, "success")
    assert entry["usage"] == {
        "input": 1_000,
        "cache_read": 200,
        "output": 300,
        "reasoning": 40,
        "input_tokens": 1_200,
        "output_tokens": 340,
        "total_tokens": 1_540,
    }


def test_an_adjustment_stands_beside_the_call_and_counts() -> None:
    """In the entry, and in the budget at once; never below nothing."""

    async def test() -> None:
        plane = Plane()
        await plane.fill()
        path = f"/api/entries/{opened(2).call.id}/adjust"
        body = b'{"delta_usd": -0.04, "reason": "refund"}'
        entry = (await plane.ask(path, method="POST", body=body)).json
        assert entry["cost_usd"] == 0.06 and entry["adjustments"][0]["reason"] == "refund"
        assert (await plane.ask("/api/budgets")).json["data"][0]["spent_usd"] == 0.16
        refused = await plane.ask(path, method="POST", body=b'{"delta_usd": "-0.07", "reason": "more"}')
        assert refused.status == 404 and "no settled attempt" in refused.error["message"]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("number", "n", "status", "said"),
    [
        (2, 1, 409, "was already settled, with $0.1. `adjust` changes what"),
        (3, 1, 409, "has not lapsed: it is still under way"),
        (4, 1, 409, "was released: it was never delivered"),
        (2, 7, 404, "has no lapsed attempt 7"),
    ],
)
def test_what_has_not_lapsed_is_not_resolved(number: int, n: int, status: int, said: str) -> None:
    """It says what became of it, and nothing is changed."""

    async def test() -> None:
        plane = Plane()
        await plane.fill()
        await plane.book.hold(held(4, opened=opened(4)))
        plane.book.settle(released(4))
        path, body = f"/api/entries/{opened(number).call.id}", f'{{"cost_usd": 9, "attempt": {n}}}'
        before = (await plane.ask(path)).json
        refused = await plane.ask(f"{path}/resolve", method="POST", body=body.encode())
        assert refused.status == status and said in refused.error["message"]
        assert (await plane.ask(path)).json == before

    asyncio.run(test())


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/entries?limit=0", None, "`limit` must be"),
        ("/api/entries?state=odd", None, "`state` can only be lapsed"),
        ("/api/entries?colour=red", None, "'colour' is no filter"),
        ("/api/entries?from=yesterday", None, "is no time"),
        ("/api/usage?by=colour", None, "'colour' is no group"),
        ("/api/entries/x/resolve", b'{"cost_usd": -1}', "`cost_usd` must be an amount"),
        ("/api/entries/x/resolve", b'{"cost_usd": "nan"}', "`cost_usd` must be an amount"),
        ("/api/entries/x/resolve", b'{"cost_usd": 1, "attempt": true}', "`attempt` must be"),
        ("/api/entries/x/resolve", b'{"cost_usd": 1, "state": "settled"}', "'state' is no field"),
        ("/api/entries/x/resolve", b"[]", "must be a JSON object"),
        ("/api/entries/x/resolve", b"{", "is not JSON"),
        ("/api/targets/isolate", b"{}", "`target` must be provider/model"),
        ("/api/targets/restore", b'{"target": ["rack"]}', "`target` must be provider/model"),
        ("/api/targets/restore", b'{"target": "rack", "for": 1}', "'for' is no field"),
        ("/api/erase", b"{}", "Say whose"),
        ("/api/erase", b'{"team": "x", "key": "y"}', "Say whose"),
        ("/api/cache/purge", b"{}", "Say whose answers"),
        ("/api/cache/purge", b'{"all": true, "team": "x"}', "Say whose answers"),
        ("/api/cache/purge", b'{"team": "x", "key": "y"}', "name one"),
        ("/api/cache/purge", b'{"model": 1}', "`model` must be a name"),
        ("/api/cache/purge", b'{"tenant": "x"}', "'tenant' is no field"),
        ("/api/entries/x/adjust", b'{"delta_usd": 1}', "`reason` must say why"),
        ("/api/entries/x/adjust", b'{"delta_usd": 1e30, "reason": "x"}', "`delta_usd` must be an amount"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(path: str, body: bytes | None, said: str) -> None:
    """Unknown fields, too (S09)."""
    answer = ask(path) if body is None else ask(path, method="POST", body=body)
    assert answer.status == 400 and said in answer.error["message"], answer.body


LIMITS = (
    "rpm",
    "tpm",
    "concurrency",
    "max_output_tokens",
    "max_choices",
    "max_images",
    "max_reasoning_effort",
    "without_redis",
)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"rpm": 60, "tpm": 100_000, "concurrency": 4}, {"rpm": 60, "tpm": 100_000, "concurrency": 4}),
        ({"tpm": 5, "rpm": None}, {"tpm": 5}),
        (
            {"max_output_tokens": 1, "max_choices": 1, "max_images": 0, "max_reasoning_effort": "none"},
            {"max_output_tokens": 1, "max_choices": 1, "max_images": 0, "max_reasoning_effort": "none"},
        ),
        ({"rpm": 1, "without_redis": "closed"}, {"rpm": 1, "without_redis": "closed"}),
        ({"rpm": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_key_is_made_with_its_limits(limits: object, kept: dict[str, Any] | None) -> None:
    """Those that are left out, or null, do not limit it."""
    made = ask("/api/keys", method="POST", body=dumps({"name": "x", "limits": limits}))
    assert made.status == 200
    assert made.json["limits"] == (None if kept is None else {**dict.fromkeys(LIMITS), **kept})


def test_a_key_is_shown_once() -> None:
    """In the answer that made it, and in none after."""

    async def test() -> None:
        plane = Plane()
        made = (await plane.ask("/api/keys", method="POST", body=b'{"name": "web", "models": ["a"]}')).json
        assert (made["name"], made["models"], made["key"]) == ("web", ["a"], "tg-secret")
        (listed,) = (await plane.ask("/api/keys")).json["data"]
        assert "key" not in listed and "digest" not in listed and listed["hint"] == "tg-…abcd"
        turned = await plane.ask("/api/keys/web/rotate", method="POST", body=b'{"grace": "2h"}')
        assert turned.json["key"] == "tg-new-7200"
        assert (await plane.ask("/api/keys/nobody/revoke", method="POST")).status == 404
        assert (await plane.ask("/api/keys/nobody/rotate", method="POST")).status == 404

    asyncio.run(test())


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"name": ""},
        {"name": "a b"},
        {"name": "x" * 65},
        {"name": 5},
        {"name": "x", "models": []},
        {"name": "x", "models": ["a b"]},
        {"name": "x", "models": "a"},
        {"name": "x", "tiers": ["cache"]},
        {"name": "x", "data": "secret"},
        {"name": "x", "expires": 5},
        {"name": "x", "budget": {"per": "day"}},
        {"name": "x", "budget": {"usd": -1}},
        {"name": "x", "budget": {"usd": 1, "colour": "red"}},
        {"name": "x", "budget": {"usd": 1, "per": []}},
        {"name": "x", "expires": "9999-12-31"},
        {"name": "x", "expires": "999999y"},
        {"name": "x", "limits": 5},
        {"name": "x", "limits": {"rps": 5}},
        {"name": "x", "limits": {"rpm": 0}},
        {"name": "x", "limits": {"tpm": -1}},
        {"name": "x", "limits": {"rpm": 1.5}},
        {"name": "x", "limits": {"rpm": True}},
        {"name": "x", "limits": {"concurrency": "4"}},
        {"name": "x", "limits": {"concurrency": 100_001}},
        {"name": "x", "limits": {"max_output_tokens": 0}},
        {"name": "x", "limits": {"max_output_tokens": 10_000_001}},
        {"name": "x", "limits": {"max_choices": 0}},
        {"name": "x", "limits": {"max_images": -1}},
        {"name": "x", "limits": {"max_images": False}},
        {"name": "x", "limits": {"max_reasoning_effort": "lots"}},
        {"name": "x", "limits": {"max_reasoning_effort": ["low"]}},
        {"name": "x", "limits": {"max_reasoning_effort": 1}},
        {"name": "x", "limits": {"rpm": 1, "without_redis": "perhaps"}},
        {"name": "x", "metadata": {"a": 5}},
        {"name": "x", "metadata": {str(n): "x" for n in range(51)}},
    ],
)
def test_a_wish_for_a_key_that_cannot_be_is_refused(wish: dict[str, Any]) -> None:
    """With the field."""
    answer = ask("/api/keys", method="POST", body=dumps(wish))
    assert answer.status == 400 and answer.error["param"] in ("name", *wish), answer.body


def test_what_is_not_there_is_404() -> None:
    """With the shape of every other error."""
    for path, method in (
        ("/api/entries/nonsense", "GET"),
        ("/api/nothing", "GET"),
        ("/", "GET"),
        ("/api/entries/x/resolve", "GET"),
        ("/api/budgets", "POST"),
    ):
        answer = ask(path, method=method)
        assert answer.status in (404, 405) and answer.error["code"] == "not_found", path
    missing = ask("/api/entries/x/resolve", method="POST", body=b'{"cost_usd": 1}')
    assert missing.status == 404 and "There is no call x in the ledger" in missing.error["message"]


def test_a_target_is_isolated_and_restored_by_its_name() -> None:
    """A model with slashes, or all of a provider; the answer is the provider's state."""

    async def test() -> None:
        plane = Plane()
        answer = await plane.ask("/api/targets/isolate", method="POST", body=b'{"target": "rack/org/m"}')
        assert (answer.status, answer.json) == (200, {"provider": "rack"})
        assert (
            await plane.ask("/api/targets/restore", method="POST", body=b'{"target": "rack"}')
        ).status == 200
        assert plane.by_hand == [("isolate", "rack", "org/m"), ("restore", "rack", "")]
        answer = await plane.ask("/api/targets/isolate", method="POST", body=b'{"target": "other/m"}')
        assert (answer.status, answer.error["code"]) == (404, "not_found")

    asyncio.run(test())


def test_answers_are_purged_by_whose_they_are() -> None:
    """Of a team, of a key, of a model, of all; how many are gone is told."""

    async def test() -> None:
        plane = Plane()
        assert (await plane.ask("/api/cache")).json == {"answers": 7}
        for body in (b'{"team": "x", "model": "m"}', b'{"key": "k"}', b'{"all": true}'):
            answer = await plane.ask("/api/cache/purge", method="POST", body=body)
            assert (answer.status, answer.json) == (200, {"purged": 3})
        assert plane.purged == [("x", None, "m"), (None, "k", None), (None, None, None)]
        erased = await plane.ask("/api/erase", method="POST", body=b'{"key": "k"}')
        assert erased.json == {"erased": True, "receipts": 4, "batches": 2, "files": 3}
        assert plane.purged[-1] == (None, "k", "erased")

    asyncio.run(test())


def test_a_reload_that_is_refused_says_where_to_look() -> None:
    """The old settings stay."""

    async def test() -> None:
        plane = Plane()
        assert (await plane.ask("/api/reload", method="POST")).json == {"reloaded": True}
        refused = await plane.ask("/api/reload", method="POST")
        assert refused.status == 400 and "the log says why" in refused.error["message"]

    asyncio.run(test())


GOOD = {
    b"host": b"localhost:4401",
    b"authorization": f"Bearer {TOKEN}".encode(),
    b"content-type": b"application/json",
    b"content-length": b"2",
}


@pytest.mark.parametrize(("method", "path"), [(method, path) for method in ROUTES for path in ROUTES[method]])
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({b"authorization": None}, 401),
        ({b"authorization": b"Bearer wrong"}, 401),
        ({b"authorization": f"Basic {TOKEN}".encode()}, 401),
        ({b"authorization": b"Bearer "}, 401),
        ({b"host": b"evil.example"}, 421),
        ({b"host": b"localhost.evil.example"}, 421),
        ({b"host": None}, 421),
        ({b"origin": b"http://localhost:4401"}, 403),
        ({b"origin": b"null"}, 403),
    ],
)
def test_s01_s03_s10_every_route_needs_the_token_a_host_of_ours_and_no_page(
    method: str, path: str, changed: dict[bytes, bytes | None], status: int
) -> None:
    """Each by itself; the token opens nothing where a name or a page is wrong."""
    headers = [(name, value) for name, value in {**GOOD, **changed}.items() if value is not None]
    assert ask(path, method=method, headers=headers).status == status


@pytest.mark.parametrize(
    ("changed", "code", "status"),
    [
        ({b"authorization": b"Bearer wrong"}, "invalid_api_key", 401),
        ({b"host": b"evil.example"}, "invalid_request", 421),
        ({}, None, 200),
    ],
)
def test_a_refusal_at_the_door_leaves_a_trace(
    changed: dict[bytes, bytes], code: str | None, status: int
) -> None:
    """Whoever tries tokens can be seen; neither token nor path is told."""

    async def told() -> list[Event]:
        plane = Plane()
        assert (await plane.ask("/api/budgets", headers=[*{**GOOD, **changed}.items()])).status == status
        return plane.events

    expected = [] if code is None else [Refusal(endpoint="admin", code=code, status=status)]
    assert asyncio.run(told()) == expected


def test_a_bug_is_told_without_values() -> None:
    """By whom and where, and not what was in hand."""

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("sk-secret")

    async def test() -> None:
        events: list[Event] = []
        guard = Guard(fails, emit=events.append, token=TOKEN, hosts=frozenset({"localhost"}))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [*GOOD.items()]}
        await guard(scope, fails, fails)  # type: ignore[arg-type]  # neither is called
        (event,) = events
        assert isinstance(event, Notice) and event.word == "bug" and event.severe
        assert "KeyError in fails (test_plane.py:" in event.message and "sk-secret" not in event.message

    asyncio.run(test())


def test_the_routes_above_are_all_there_are() -> None:
    """A new one is tried, too."""
    plane = Plane()
    found = {
        (method, route.path.replace("{call_id}", "x").replace("{name}", "x"))
        for route in plane.app._app.routes  # type: ignore[attr-defined]  # Starlette's
        for method in route.methods - {"HEAD"}
    }
    assert found == {(method, path) for method in ROUTES for path in ROUTES[method]}


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({b"content-type": b"text/plain"}, 415),
        ({b"content-type": None}, 415),
        ({b"content-length": None, b"transfer-encoding": b"chunked"}, 413),
        ({b"content-length": None, b"transfer-encoding": b"chunked", b"content-type": b"text/plain"}, 415),
        ({b"content-length": None, b"content-type": None}, 200),
        ({b"content-length": b"0", b"content-type": None}, 200),
        ({b"content-length": b"10000000"}, 413),
        ({b"content-length": b"+2"}, 413),
    ],
)
def test_a_body_is_json_of_a_known_and_small_size(changed: dict[bytes, bytes | None], status: int) -> None:
    """A form of another page can send neither."""
    headers = [(name, value) for name, value in {**GOOD, **changed}.items() if value is not None]
    assert ask("/api/reload", method="POST", headers=headers).status == status


def test_two_tokens_are_none() -> None:
    """Nor are two hosts."""
    for name, value in ((b"authorization", b"Bearer x"), (b"host", b"localhost")):
        answer = ask("/api/budgets", headers=[*GOOD.items(), (name, value)])
        assert answer.status in (401, 421)

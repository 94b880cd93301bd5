"""Settings that are each right and together wrong: names that do not exist, secrets used twice, open doors.

The checks read finished settings and raw data from a file alike and pass over whatever is malformed, so
that one run tells of these together with the faults of single values.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, TypeAdapter, ValidationError

from tiergate.config.addresses import Address, is_inside
from tiergate.config.problems import Path, path_text
from tiergate.config.scalar import nearest
from tiergate.config.secret import Secret
from tiergate.config.values import Listen

Said: TypeAlias = tuple[Path, str]
"""A place in the settings, and a sentence about it."""

_SHORT_KEY = 16
_LISTEN = TypeAdapter[Address](Listen)


def contradictions(settings: object) -> tuple[Said, ...]:
    """Find what cannot stand together, in the order of the file's sections."""
    return (
        *_doors(settings),
        *_store(settings),
        *_providers(settings),
        *_models(settings),
        *_prices(settings),
        *_facts(settings),
        *_budgets(settings),
        *_callers(settings),
        *_secrets(settings),
    )


def advice(settings: object) -> tuple[Said, ...]:
    """Find what is allowed and rarely meant."""
    return (
        *_public_http(settings),
        *_without_credential(settings),
        *_unasked_keys(settings),
        *_weak(settings),
    )


# --- reading both shapes --------------------------------------------------------------------------------


def _item(thing: object, *names: str) -> Any:
    for name in names:
        if isinstance(thing, Mapping):
            thing = thing.get(name)
        else:
            thing = getattr(thing, name, None) if isinstance(thing, BaseModel) else None
    return thing


def _table(thing: object, name: str) -> Iterator[tuple[str, object]]:
    table = _item(thing, name)
    if isinstance(table, Mapping):
        yield from table.items()


def _list(thing: object, name: str) -> Iterator[tuple[int, object]]:
    found = _item(thing, name)
    if isinstance(found, list | tuple):
        yield from enumerate(found)


def _text(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    return value if isinstance(value, str) else ""


def _address(value: object, default: str) -> Address | None:
    try:
        return _LISTEN.validate_python(value if value is not None else default)
    except ValidationError:
        return None


# --- what cannot stand ----------------------------------------------------------------------------------


def _doors(settings: object) -> Iterator[Said]:
    listen = _address(_item(settings, "listen"), "127.0.0.1:4400")
    admin = _address(_item(settings, "admin", "listen"), "127.0.0.1:4401")
    auth = _item(settings, "auth")
    if listen and not listen.loopback and auth in (None, "open"):
        yield (
            ("listen",),
            f"{listen} can be reached from outside, and auth is open: set auth: keys, or listen on 127.0.0.1",
        )
    if admin and not admin.loopback and not _text(_item(settings, "admin", "token")):
        yield (
            ("admin", "listen"),
            f"{admin} can be reached from outside: set admin.token, or listen on 127.0.0.1",
        )
    if listen and admin and listen.collides(admin):
        yield ("admin", "listen"), f"{admin} collides with listen: give it another port"


def _store(settings: object) -> Iterator[Said]:
    shared = next((name for name in ("store", "redis") if _text(_item(settings, name))), None)
    if shared is not None and not _text(_item(settings, "secret")):
        yield (
            ("secret",),
            f"is needed with {shared}, since every replica must have the same: take `openssl rand -hex 32`",
        )
    keeps = _item(settings, "cache", "exact", "keep") == "store"
    if keeps and _text(_item(settings, "store")) and not _text(_item(settings, "redis")):
        yield (
            ("cache", "exact", "keep"),
            "needs `redis` where the store is PostgreSQL: a purge would not reach the files of others",
        )


def _providers(settings: object) -> Iterator[Said]:
    for name, provider in _table(settings, "providers"):
        where: Path = ("providers", name)
        one, many = bool(_item(provider, "base_url")), bool(_item(provider, "replicas"))
        if one and many:
            yield (*where, "replicas"), "cannot stand beside base_url: give one of them"
        elif isinstance(provider, Mapping | BaseModel) and not (one or many):
            yield where, "needs base_url, or replicas for several servers"
        if _item(provider, "tier") != "private":
            for only in ("engine", "cost"):
                if _item(provider, only):
                    yield (*where, only), "belongs to a private server: set tier: private, or remove it"
        yield from _twice((*where, "api_keys"), _list(provider, "api_keys"))
        yield from _twice((*where, "replicas"), _list(provider, "replicas"))


def _twice(where: Path, entries: Iterator[tuple[int, object]]) -> Iterator[Said]:
    first: dict[str, int] = {}
    for index, entry in entries:
        if text := _text(entry):
            if text in first:
                yield (*where, index), f"is the same as number {first[text] + 1} of this list: remove one"
            first.setdefault(text, index)


def _unknown_provider(settings: object, target: str) -> str | None:
    providers = _item(settings, "providers")
    name, slash, _ = target.partition("/")
    if not isinstance(providers, Mapping) or not slash or not name or name in providers:
        return None
    known = [str(one) for one in providers]
    shown = repr(name) if len(name) <= 24 else "of this name"
    return f"there is no provider {shown}{nearest(name, known) or '; providers: ' + ', '.join(known[:10])}"


def _models(settings: object) -> Iterator[Said]:
    for name, model in _table(settings, "models"):
        where: Path = ("models", name, "targets")
        yield from _twice(where, _list(model, "targets"))
        for index, entry in _list(model, "targets"):
            target = _text(entry)
            unknown = _unknown_provider(settings, target)
            if unknown:
                yield (*where, index), unknown
            elif name == "*" and target and not target.endswith("/*"):
                yield (*where, index), "needs provider/*, as the model * stands for every other name"
            elif name != "*" and target.endswith("/*"):
                yield (*where, index), "belongs under the model *; name the upstream's model here"


def _prices(settings: object) -> Iterator[Said]:
    seen: dict[tuple[str, str], int] = {}
    for index, price in _list(settings, "prices"):
        target = _text(_item(price, "target"))
        where: Path = ("prices", index, "target")
        unknown = _unknown_provider(settings, target)
        if unknown:
            yield where, unknown
        elif target.endswith("/*"):
            yield where, "needs one model: a price is per target"
        yield from _currency(("prices", index), price)
        day = str(_item(price, "from") or _item(price, "valid_from") or "")
        if target and (target, day) in seen:
            yield (
                where,
                f"has a price from the same day in number {seen[target, day] + 1} of this list: remove one",
            )
        seen.setdefault((target, day), index)


def _facts(settings: object) -> Iterator[Said]:
    seen: dict[str, int] = {}
    for index, row in _list(settings, "facts"):
        target = _text(_item(row, "target"))
        where: Path = ("facts", index, "target")
        unknown = _unknown_provider(settings, target)
        if unknown:
            yield where, unknown
        elif target.endswith("/*"):
            yield where, "needs one model: limits are per target"
        elif target and target in seen:
            yield where, f"has its facts in number {seen[target] + 1} of this list: remove one"
        seen.setdefault(target, index)


def _budgets(settings: object) -> Iterator[Said]:
    seen: dict[tuple[str, str], int] = {}
    for index, budget in _list(settings, "budgets"):
        what = (_text(_item(budget, "scope")), str(_item(budget, "per") or "total"))
        if what in seen:
            yield (
                ("budgets", index, "scope"),
                f"has a budget with the same window in number {seen[what] + 1} of this list: remove one",
            )
        seen.setdefault(what, index)


def _currency(where: Path, price: object) -> Iterator[Said]:
    in_usd, in_other = _item(price, "usd_per_1m") is not None, _item(price, "per_1m") is not None
    if in_usd and in_other:
        yield (*where, "per_1m"), "cannot stand beside usd_per_1m: give one of them"
        return
    if isinstance(price, Mapping | BaseModel) and not (in_usd or in_other):
        yield where, "needs usd_per_1m with input and output, or per_1m with its currency"
    for name in ("currency", "usd_per_currency"):
        given = _item(price, name) not in (None, "")
        if in_other and not given:
            yield where, f"needs {name} beside per_1m"
        elif in_usd and given:
            yield (*where, name), "belongs to per_1m: usd_per_1m is in USD already"


def _callers(settings: object) -> Iterator[Said]:
    first: dict[str, int] = {}
    for index, key in _list(settings, "keys"):
        name = _text(_item(key, "name"))
        where: Path = ("keys", index, "name")
        if name == "local":
            yield where, "local is the name of callers in open mode: choose another"
        elif name and name in first:
            yield where, f"is the name of number {first[name] + 1} of this list too: names are unique"
        first.setdefault(name, index)


def _secrets(settings: object) -> Iterator[Said]:
    """Each secret has one use: who learns one of them must not gain a second."""
    first: dict[str, Path] = {}
    for where, secret in _all_secrets(settings):
        if not secret:
            continue
        other = first.setdefault(secret, where)
        if other != where and not (_is_api_key(other) and _is_api_key(where)):
            yield where, f"is equal to {path_text(other)}: every secret needs a value of its own"


def _all_secrets(settings: object) -> Iterator[tuple[Path, str]]:
    yield ("secret",), _text(_item(settings, "secret"))
    yield ("admin", "token"), _text(_item(settings, "admin", "token"))
    for name, provider in _table(settings, "providers"):
        for index, secret in _list(provider, "api_keys"):
            yield ("providers", name, "api_keys", index), _text(secret)
    for index, key in _list(settings, "keys"):
        yield ("keys", index, "secret"), _text(_item(key, "secret"))


def _is_api_key(where: Path) -> bool:
    return where[0] == "providers"


# --- what is rarely meant -------------------------------------------------------------------------------


def _outside_urls(provider: object) -> Iterator[tuple[Path, str]]:
    single = _text(_item(provider, "base_url"))
    if single and not is_inside(single):
        yield ("base_url",), single
    for index, url in _list(provider, "replicas"):
        if not is_inside(_text(url)):
            yield ("replicas", index), _text(url)


def _public_http(settings: object) -> Iterator[Said]:
    for name, provider in _table(settings, "providers"):
        for path, url in _outside_urls(provider):
            if url.startswith("http://"):
                yield (
                    ("providers", name, *path),
                    "is plain http to a public address: prompts and keys can be read on the way; use https",
                )


def _without_credential(settings: object) -> Iterator[Said]:
    for name, provider in _table(settings, "providers"):
        if any(_outside_urls(provider)) and not any(_list(provider, "api_keys")):
            yield (
                ("providers", name),
                "has a public address and no api_keys: calls go there without a credential",
            )


def _unasked_keys(settings: object) -> Iterator[Said]:
    if _item(settings, "auth") != "keys" and any(_list(settings, "keys")):
        yield ("keys",), "are given and auth is open, so nobody has to bring one; set auth: keys"


def _weak(settings: object) -> Iterator[Said]:
    for index, key in _list(settings, "keys"):
        if 0 < len(_text(_item(key, "secret"))) < _SHORT_KEY:
            yield (
                ("keys", index, "secret"),
                f"is shorter than {_SHORT_KEY} characters and can be guessed: take `openssl rand -hex 24`",
            )

"""The name under which an answer is kept: two questions share one only if they are the same question.

It is a keyed hash over everything that was asked, with a secret of the tenant: nobody who finds the keys can
tell what was asked, not even whether two tenants asked the same. What a field means need not be known: one
that is not on the short list of those without a say is a part of the question.
"""

import hmac
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tiergate.core import derived
from tiergate.wire import canonical, dumps, verbatim

VERSION: Final = b"1"
WITHOUT_A_SAY: Final = frozenset({"stream", "stream_options", "user", "metadata", "store", "model"})
"""Fields that change nothing in an answer's words. The model has its own place in the key."""
_BESIDE_KEYS: Final = b"hint"
"""No key of an answer begins so: its first part says how long it is."""
_SCHEMAS: Final = ("guided_json", "structured_outputs")
"""Fields of engines that hold a schema."""
_PURPOSE: Final = b"tiergate cache 1\x00"
_TENANTS: Final = 4_096


class Asked(NamedTuple):
    """What a question is, beside its words."""

    tenant: str
    data_class: str
    family: str
    """Of endpoints: those of one family have the same bodies."""
    entry: str
    """The model, as the settings know it."""
    revision: str
    """Of that entry: its targets and what is kept of it."""


class CacheKeys:
    """Makes keys.

    Args:
        secret: the house's.
        salt_of: gives what is mixed in of a tenant; when that is gone, nobody can make its keys again.
    """

    def __init__(self, secret: str, salt_of: Callable[[str], bytes | None]) -> None:
        self._secret = secret.encode()
        self._salt_of = salt_of
        self._of_tenant = lru_cache(_TENANTS)(self._derived)

    def key(self, asked: Asked, body: Mapping[str, Any]) -> bytes | None:
        """Give the key of a question, 32 bytes; None: its tenant has no salt yet."""
        salt = self._salt_of(asked.tenant)
        if salt is None:
            return None
        return hmac.digest(self._of_tenant(asked.tenant, salt), _beside(asked) + words(body), "sha256")

    def keyed(self, tenant: str, told: bytes) -> bytes | None:
        """Give a hash that only this tenant has; None: it has no salt yet."""
        salt = self._salt_of(tenant)
        return (
            None
            if salt is None
            else hmac.digest(self._of_tenant(tenant, salt), _BESIDE_KEYS + told, "sha256")
        )

    def forget(self) -> None:
        """Forget what keys were made with; it is made again where it still can be."""
        self._of_tenant.cache_clear()

    def _derived(self, tenant: str, salt: bytes) -> bytes:
        return derived(self._secret, _PURPOSE + len(salt).to_bytes(1, "big") + salt + tenant.encode())


@lru_cache(_TENANTS)
def _beside(asked: Asked) -> bytes:
    """Write everything but the words; each part says how long it is, so that no two are the same bytes."""
    parts = (VERSION, *(part.encode() for part in asked))
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def words(body: Mapping[str, Any]) -> bytes:
    """Write what is asked in one way, whatever order its keys came in.

    Inside the parameters of a tool and the schema of an answer the order stays: models read it.
    """
    asked = {name: value for name, value in body.items() if name not in WITHOUT_A_SAY}
    tools, form = asked.get("tools"), asked.get("response_format")
    if isinstance(tools, list):
        asked["tools"] = [_kept(tool, "function", "parameters") for tool in tools]
    if isinstance(asked.get("functions"), list):
        asked["functions"] = [_as_it_came(function, "parameters") for function in asked["functions"]]
    asked = _as_it_came(asked, *_SCHEMAS)
    if isinstance(form, dict):
        asked["response_format"] = _kept(form, "json_schema", "schema")
    return canonical(asked)


def _as_it_came(holder: Any, *names: str) -> Any:
    """Give an object some of whose values will be written in the order in which they came."""
    if not isinstance(holder, dict):
        return holder
    return holder | {name: verbatim(dumps(holder[name])) for name in names if name in holder}


def _kept(value: Any, outer: str, inner: str) -> Any:
    """Give an object whose `outer.inner` will be written in the order in which it came."""
    holder = value.get(outer) if isinstance(value, dict) else None
    if not isinstance(holder, dict) or inner not in holder:
        return value
    return {**value, outer: {**holder, inner: verbatim(dumps(holder[inner]))}}

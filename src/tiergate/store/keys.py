"""Virtual keys to rows and back; pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from tiergate.admission import KeyBudget, KeyLimits, VirtualKey
from tiergate.core import DataClass, StorageUnavailable
from tiergate.store.rows import Row


def key_facts(key: VirtualKey) -> Mapping[str, object]:
    """Give what is kept of a new key."""
    budget = key.budget
    return {
        "name": key.name,
        "digest": key.digest,
        "hint": key.hint,
        "team": key.team,
        "models": _listed(key.models),
        "tiers": _listed(key.tiers),
        "data_class": key.data_class.value,
        "budget": None
        if budget is None
        else json.dumps({"nanos": budget.amount_nanos, "per": budget.per, "slack": budget.slack_nanos}),
        "metadata": json.dumps(dict(key.metadata)),
        "created_ns": key.created_ns,
        "expires_ns": key.expires_ns,
        "made_under": key.made_under,
        "limits": None if key.limits is None else json.dumps(_given(key.limits)),
    }


def key_of(row: Row) -> VirtualKey:
    """Read a key back from a row of `all`.

    Raises:
        StorageUnavailable: it cannot be read, so nobody can tell whom it lets in.
    """
    try:
        return _key_of(row)
    except (ValueError, TypeError, LookupError) as error:
        raise StorageUnavailable(
            f"The record of the key {str(row[0])[:64]!r} in the ledger is damaged ({type(error).__name__}): "
            "nobody can tell whom it lets in. `tiergate restore` brings a backup back."
        ) from error


def _key_of(row: Row) -> VirtualKey:
    name, digest, hint, team, models, tiers, data_class, budget, metadata, *times = row
    created_ns, expires_ns, revoked_ns, old_digest, old_until_ns, made_under, limits = times
    return VirtualKey(
        name=name,
        digest=digest,
        hint=hint,
        team=team,
        models=_tuple(models),
        tiers=_tuple(tiers),
        data_class=DataClass(data_class),
        budget=_budget(budget),
        metadata=MappingProxyType(json.loads(metadata)),
        created_ns=created_ns,
        expires_ns=expires_ns,
        revoked_ns=revoked_ns,
        old_digest=old_digest,
        old_until_ns=old_until_ns,
        made_under=made_under,
        limits=None if limits is None else KeyLimits.of(json.loads(limits)),
    )


def _given(limits: KeyLimits) -> dict[str, int | str]:
    """Give the limits that there are: a replica of an older version can read what it knows."""
    return {name: limit for name, limit in asdict(limits).items() if limit is not None}


def _listed(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else json.dumps(list(names))


def _tuple(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _budget(text: str | None) -> KeyBudget | None:
    if text is None:
        return None
    found: dict[str, Any] = json.loads(text)
    return KeyBudget(amount_nanos=found["nanos"], per=found["per"], slack_nanos=found["slack"])

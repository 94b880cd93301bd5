"""The list of what can be called, with prices, limits, abilities and tiers."""

from collections.abc import Iterable, Mapping
from typing import Any

from tiergate.catalog import Ability
from tiergate.core import LOCAL, Caller, Target
from tiergate.serve import ModelEntry, Rules, find_model
from tiergate.web.estimates import price_object


def models_list(rules: Rules, *, wall_ns: int, caller: Caller = LOCAL) -> dict[str, Any]:
    """Give the OpenAI list of the models in the settings that a caller may ask for, with their targets."""
    return {
        "object": "list",
        "data": [
            _model(name, entry, rules, wall_ns)
            for name, entry in rules.models.items()
            if caller.may_ask_for(name)
        ],
    }


def model_object(asked: str, rules: Rules, *, wall_ns: int, caller: Caller = LOCAL) -> dict[str, Any]:
    """Give one model; also `provider/upstream-name`, and whatever `"*"` takes.

    Raises:
        ModelNotFound: with the list of names.
    """
    return _model(asked, find_model(asked, rules, caller), rules, wall_ns)


def _model(name: str, entry: ModelEntry, rules: Rules, wall_ns: int) -> dict[str, Any]:
    targets = [_target(target, rules, wall_ns) for target in entry.targets]
    return {
        "id": name,
        "object": "model",
        # The dialect wants a time; when a model was made is nothing that a gateway knows.
        "created": 0,
        "owned_by": entry.targets[0].provider,
        "policy": entry.policy.value,
        "tiers": sorted({target.tier.value for target in entry.targets}),
        # Of the target that is tried first; the others stand below.
        "pricing": _pricing(targets[0]),
        # Whichever target answers: the shortest, and what all can do.
        "context_length": _least(target["context_length"] for target in targets),
        "max_output_tokens": _least(target["max_output_tokens"] for target in targets),
        "capabilities": {
            ability.value: _all(target["capabilities"][ability.value] for target in targets)
            for ability in Ability
        },
        "targets": targets,
    }


def _target(target: Target, rules: Rules, wall_ns: int) -> dict[str, Any]:
    facts = rules.facts(target)
    return {
        "target": target.name,
        "tier": target.tier.value,
        "context_length": facts.context_tokens,
        "max_output_tokens": facts.output_tokens,
        # null: nobody says.
        "capabilities": {ability.value: facts.abilities.get(ability) for ability in Ability},
        "unsupported_fields": facts.unsupported,
        **price_object(rules.prices.find(target, wall_ns)),
    }


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Tell whether all say yes; a no decides, and without one so does ignorance."""
    said = set(answers)
    return False if False in said else None if None in said else True


def _pricing(target: Mapping[str, Any]) -> dict[str, Any]:
    """Say a price in one line: the state is never left out, so that an unknown one is not taken for zero."""
    return {"state": target["price"], "usd_per_1m": target.get("usd_per_1m")}

"""The list of what can be called, with prices, limits and tiers."""

from collections.abc import Mapping
from typing import Any

from tiergate.core import Target
from tiergate.serve import ModelEntry, Rules, find_model
from tiergate.web.estimates import price_object


def models_list(rules: Rules, *, wall_ns: int) -> dict[str, Any]:
    """Give the OpenAI list of the models in the settings, with the targets behind each."""
    return {
        "object": "list",
        "data": [_model(name, entry, rules, wall_ns) for name, entry in rules.models.items()],
    }


def model_object(asked: str, rules: Rules, *, wall_ns: int) -> dict[str, Any]:
    """Give one model; also `provider/upstream-name`, and whatever `"*"` takes.

    Raises:
        ModelNotFound: with the list of names.
    """
    return _model(asked, find_model(asked, rules), rules, wall_ns)


def _model(name: str, entry: ModelEntry, rules: Rules, wall_ns: int) -> dict[str, Any]:
    targets = [_target(target, rules, wall_ns) for target in entry.targets]
    contexts = [target["context_length"] for target in targets if target["context_length"] is not None]
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
        "context_length": min(contexts, default=None),
        "targets": targets,
    }


def _target(target: Target, rules: Rules, wall_ns: int) -> dict[str, Any]:
    return {
        "target": target.name,
        "tier": target.tier.value,
        "context_length": rules.context_tokens(target),
        **price_object(rules.prices.find(target, wall_ns)),
    }


def _pricing(target: Mapping[str, Any]) -> dict[str, Any]:
    """Say a price in one line: the state is never left out, so that an unknown one is not taken for zero."""
    return {"state": target["price"], "usd_per_1m": target.get("usd_per_1m")}

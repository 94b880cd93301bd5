"""The list of what can be called."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tiergate.catalog import PriceState, Rates
from tiergate.core import Target
from tiergate.serve import ModelEntry, Rules, find_model


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
    return {
        "id": name,
        "object": "model",
        # The dialect wants a time; when a model was made is nothing that a gateway knows.
        "created": 0,
        "owned_by": entry.targets[0].provider,
        "policy": entry.policy.value,
        "tiers": sorted({target.tier.value for target in entry.targets}),
        "targets": [_target(target, rules, wall_ns) for target in entry.targets],
    }


def _target(target: Target, rules: Rules, wall_ns: int) -> dict[str, Any]:
    price = rules.prices.find(target, wall_ns)
    said: dict[str, Any] = {"target": target.name, "tier": target.tier.value, "price": price.state.value}
    if price.state is PriceState.KNOWN and price.record is not None:
        said["usd_per_1m"] = _rates(price.record.rates)
    return said


def _rates(rates: Rates) -> Mapping[str, Decimal]:
    return rates.named()

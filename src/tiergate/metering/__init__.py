"""What did it use and cost: folds chunks into usage, usage into money, estimates before the fact."""

from tiergate.metering.bound import TOKENS_PER_S_MAX, Bound, bound, bounded_usage, holds_only_text
from tiergate.metering.cash import cash_nanos
from tiergate.metering.doubts import doubts
from tiergate.metering.expected import Expected, Lines
from tiergate.metering.meter import Account, Meter
from tiergate.metering.parts import CostParts, charged_rates, cost_parts
from tiergate.metering.rough import rough_tokens
from tiergate.metering.shape import COUNTED, Shape, shape_of

__all__ = [
    "COUNTED",
    "TOKENS_PER_S_MAX",
    "Account",
    "Bound",
    "CostParts",
    "Expected",
    "Lines",
    "Meter",
    "Shape",
    "bound",
    "bounded_usage",
    "cash_nanos",
    "charged_rates",
    "cost_parts",
    "doubts",
    "holds_only_text",
    "rough_tokens",
    "shape_of",
]

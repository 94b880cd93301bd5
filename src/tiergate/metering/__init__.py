"""What did it use and cost: folds chunks into usage, usage into money, estimates before the fact."""

from tiergate.metering.bound import TOKENS_PER_S_MAX, Bound, bound, bounded_usage
from tiergate.metering.cash import cash_nanos
from tiergate.metering.meter import Account, Meter

__all__ = ["TOKENS_PER_S_MAX", "Account", "Bound", "Meter", "bound", "bounded_usage", "cash_nanos"]

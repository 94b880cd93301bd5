"""What gateways share over Redis, where the settings name one."""

from contextlib import AsyncExitStack

from tiergate.app.background import in_background
from tiergate.config import Settings
from tiergate.core import CannotStart, Clock, Emit
from tiergate.resilience import Leasing, Permits

_MISSING = "The setting `redis` needs its driver, which is not installed: pip install 'tiergate[redis]'"


def share_rates(
    stack: AsyncExitStack, settings: Settings, permits: Permits, *, process: str, clock: Clock, tell: Emit
) -> Leasing | None:
    """Lease the rates of providers until the stack closes; None: there is nobody to share them with.

    A server that cannot be reached stops no start: the rates are shared once it can.

    Raises:
        CannotStart: the driver is missing, or the address is none.
    """
    if settings.redis is None:
        return None
    try:
        # The driver is no part of an installation without extras.
        from tiergate.store.redis import RedisRateBank
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise CannotStart(_MISSING) from None
    assert settings.secret is not None
    bank = RedisRateBank(settings.redis.reveal(), secret=settings.secret.reveal())
    stack.push_async_callback(bank.aclose)
    leasing = Leasing(permits, bank, process=process, clock=clock, emit=tell)
    in_background(stack, leasing.run(), "Sharing rates with other gateways", tell)
    return leasing

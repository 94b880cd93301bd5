"""What gateways share over Redis, where the settings name one."""

from contextlib import AsyncExitStack

from tiergate.config import Settings
from tiergate.core import CannotStart, Clock, Emit
from tiergate.rates import Leasing

_MISSING = "The setting `redis` needs its driver, which is not installed: pip install 'tiergate[redis]'"


def open_leasing(
    stack: AsyncExitStack, settings: Settings, *, process: str, clock: Clock, tell: Emit
) -> Leasing | None:
    """Open what leases the rates that gateways share; None: there is nobody to share them with.

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
    return Leasing(bank, process=process, clock=clock, emit=tell)

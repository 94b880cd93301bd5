"""The two doors with limits, callers' and providers', and what gateways share of them over Redis."""

import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tiergate.admission import Admission, Keyring
from tiergate.app.background import in_background
from tiergate.config import Settings, fill
from tiergate.core import CannotStart, Clock, Emit
from tiergate.rates import Leasing
from tiergate.resilience import Permits

_MISSING = "The setting `redis` needs its driver, which is not installed: pip install 'tiergate[redis]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What a call of a caller, and an attempt at a provider, come through."""

    admission: Admission
    permits: Permits
    leasing: Leasing | None
    """None: there is nobody to share limits with."""


def open_doors(
    stack: AsyncExitStack, settings: Settings, keyring: Keyring, *, clock: Clock, tell: Emit
) -> Doors:
    """Open the doors, and lease what they share until the stack closes.

    A Redis that cannot be reached stops no start: limits are shared once it can.

    Raises:
        CannotStart: its driver is missing, or its address is none.
    """
    leasing = _leasing(stack, settings, clock, tell)
    permits = Permits(
        fill.limits(settings),
        clock=clock,
        is_adaptive=settings.resilience.adaptive_concurrency,
        sharing=leasing,
    )
    admission = Admission(keyring, monotonic=clock.monotonic, sharing=leasing)
    if leasing is not None and admission.shared_limits is not None:
        leases = leasing.run(permits, admission.shared_limits)
        in_background(stack, leases, "Sharing limits with other gateways", tell)
    return Doors(admission=admission, permits=permits, leasing=leasing)


def _leasing(stack: AsyncExitStack, settings: Settings, clock: Clock, tell: Emit) -> Leasing | None:
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
    return Leasing(bank, process=secrets.token_hex(8), clock=clock, emit=tell)

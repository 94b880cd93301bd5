"""What processes share through Redis: rates. Never money, and no call waits for it."""

from tiergate.store.redis.bank import RedisRateBank

__all__ = ["RedisRateBank"]

"""What processes share through Redis: rates and kept answers. Never money."""

from tiergate.store.redis.bank import RedisRateBank
from tiergate.store.redis.shelf import RedisShelf

__all__ = ["RedisRateBank", "RedisShelf"]

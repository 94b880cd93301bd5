"""Virtual keys to rows: what is written of limits is what there is."""

import json

from tiergate.admission import KeyLimits, VirtualKey
from tiergate.store.keys import key_facts


def test_a_limit_that_a_key_does_not_have_is_not_written() -> None:
    """So an older replica on the same store, which does not know the newest limits, can read keys without."""
    key = VirtualKey(name="web", digest=b"d", hint="", created_ns=0, limits=KeyLimits(rpm=60, max_images=0))
    assert json.loads(str(key_facts(key)["limits"])) == {"rpm": 60, "max_images": 0}

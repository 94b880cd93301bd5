"""About how many tokens, told from bytes alone: for rates, which are corrected when a call has ended.

The line through a question's shape (`expected`) is nearer to the truth and takes milliseconds, too long for
the way of every call.
"""

from collections.abc import Mapping
from typing import Any, Final

from tiergate.metering.bound import holds_only_text
from tiergate.metering.shape import texts_of

BYTES_PER_TOKEN: Final = 4
"""A rule of thumb for English text."""


def rough_tokens(body: Mapping[str, Any], prompt_bytes: int) -> int:
    """Tell about how many input tokens a question has: by its bytes, with pictures and sounds by its text."""
    if not holds_only_text(body):
        prompt_bytes = sum([len(text.encode("utf-8", "replace")) for text in texts_of(body.get("messages"))])
    return -(-prompt_bytes // BYTES_PER_TOKEN)

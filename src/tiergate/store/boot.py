"""Which run of the machine this is: as long as it lasts, nothing that was written is lost."""

import uuid
from pathlib import Path
from typing import Final

_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Give the machine's boot; where it says none, one that is never seen again: the safe side."""
    try:
        return _BOOT_FILE.read_text().strip()
    except OSError:
        return str(uuid.uuid4())

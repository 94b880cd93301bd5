"""`tiergate serve` with a second and a half of patience for slow clients, so that its tests end soon."""

import os
import sys
from pathlib import Path

from tiergate.app.options import run_to_end
from tiergate.app.serving import serve
from tiergate.app.starting import file_or_found
from tiergate.web import ListenerLimits, VisitLimits

PATIENCE_S = 1.5

if __name__ == "__main__":
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    limits = ListenerLimits(
        header_read_s=PATIENCE_S, read_bytes_per_s=1 << 20, visit=VisitLimits(write_idle_s=PATIENCE_S)
    )
    run_to_end(
        serve(
            file_or_found(config, os.environ),
            environ=os.environ,
            grace_s=0,
            drain_s=1,
            say=lambda text: print(text, flush=True),
            limits=limits,
            body_wait_s=PATIENCE_S,
        )
    )

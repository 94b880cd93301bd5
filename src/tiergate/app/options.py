"""What the commands share: options that many have, and how they run."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file. Else $TIERGATE_CONFIG, else ./tiergate.yaml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def run_to_end(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a command to its end."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)

"""The command line's part about targets: `tiergate targets`."""

import os
from typing import Annotated

import typer

from tiergate.app.options import AsJson, Config, run_to_end

targets = typer.Typer(
    help="See which targets of the running gateway are left alone, and why; isolate and restore them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="provider/model, or a provider alone: all of it.")]


@targets.command("list", epilog="Example: tiergate targets list --json")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """List providers and the models that were asked, with the states of their breakers."""
    from tiergate.app.starting import file_or_default
    from tiergate.app.targets import list_targets

    run_to_end(list_targets(file_or_default(config, os.environ), os.environ, as_json=as_json))


@targets.command("isolate", epilog="Example: tiergate targets isolate rack")
def isolate(target: Name, config: Config = None, as_json: AsJson = False) -> None:
    """Ask a target no more, until it is restored or the gateway starts anew; calls go to the next one."""
    _change(target, "isolate", config, as_json=as_json)


@targets.command("restore", epilog="Example: tiergate targets restore rack/llama-3")
def restore(target: Name, config: Config = None, as_json: AsJson = False) -> None:
    """Ask a target again at once, whatever kept it away."""
    _change(target, "restore", config, as_json=as_json)


def _change(target: str, how: str, config: Config, *, as_json: bool) -> None:
    from tiergate.app.starting import file_or_default
    from tiergate.app.targets import change_target

    loaded = file_or_default(config, os.environ)
    run_to_end(change_target(loaded, os.environ, target, how, as_json=as_json))

"""The command line's part about the cache: `tiergate cache`."""

import os
from typing import Annotated

import typer

from tiergate.app.options import AsJson, Config, run_to_end

cache = typer.Typer(
    help="See what the running gateway keeps of answers, and what comes of it; delete it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache.command("show", epilog="Example: tiergate cache show --json")
def show(config: Config = None, as_json: AsJson = False) -> None:
    """Say how many answers are kept, and what became of calls and of answers since the start."""
    from tiergate.app.caching import show_cache
    from tiergate.app.starting import file_or_default

    run_to_end(show_cache(file_or_default(config, os.environ), os.environ, as_json=as_json))


@cache.command("purge", epilog="Example: tiergate cache purge --team web --model deepseek-v3.2")
def purge(
    team: Annotated[str | None, typer.Option("--team", help="Answers to the keys of this team.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Answers to this key, which has no team.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Answers of this model.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All answers.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete kept answers; the next call that asks the same is a miss."""
    from tiergate.app.caching import purge_cache
    from tiergate.app.starting import file_or_default

    named = {"team": team, "key": key, "model": model}
    wish = {name: value for name, value in named.items() if value is not None}
    body = {**wish, "all": True} if everything else wish
    run_to_end(purge_cache(file_or_default(config, os.environ), os.environ, body, as_json=as_json))

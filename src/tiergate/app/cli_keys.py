"""The command line's part about virtual keys: `tiergate keys`."""

import os
from typing import Annotated, Any

import typer

from tiergate.app.options import AsJson, Config, run_to_end

keys = typer.Typer(
    help="Make, list, rotate and revoke keys for callers; `auth: keys` in the settings asks for them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MaxOutputTokens = Annotated[
    int | None, typer.Option(help="Longest answer of one choice that a call may ask for, in tokens.")
]
MaxChoices = Annotated[int | None, typer.Option(help="Choices that a call may ask for (n).")]
MaxImages = Annotated[int | None, typer.Option(help="Pictures that a call may hold.")]
MaxReasoningEffort = Annotated[
    str | None, typer.Option(help="Most reasoning: none, minimal, low, medium, high or xhigh.")
]
Name = Annotated[str, typer.Argument(help="The key's name in records, reports and budgets.")]


@keys.command("create", epilog="Example: tiergate keys create web --budget-usd 50 --per month --models chat")
def create(
    name: Name,
    team: Annotated[str | None, typer.Option(help="Team that it belongs to.")] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Models that it may ask for, with commas between; also gpt-*."),
    ] = None,
    tiers: Annotated[str | None, typer.Option(help="Tiers that may answer it: private, hosted.")] = None,
    private_only: Annotated[
        bool, typer.Option("--private-only", help="Its calls never leave for a hosted tier.")
    ] = False,
    budget_usd: Annotated[str | None, typer.Option(help="What it may spend in each window.")] = None,
    per: Annotated[str, typer.Option(help="The window: total, day, week or month.")] = "month",
    rpm: Annotated[int | None, typer.Option(help="Calls that it may make per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens that it may use per minute.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Calls that it may have inside at one time.")
    ] = None,
    max_output_tokens: MaxOutputTokens = None,
    max_choices: MaxChoices = None,
    max_images: MaxImages = None,
    max_reasoning_effort: MaxReasoningEffort = None,
    without_redis: Annotated[
        str | None,
        typer.Option(help="Without Redis its rates are: share (each gateway's part), closed, open."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="A moment, or how long, such as 30d.")] = None,
    note: Annotated[str | None, typer.Option(help="Something to remember about it.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: it is kept nowhere."""
    from tiergate.app.keys import create_key
    from tiergate.app.starting import file_or_default

    body: dict[str, Any] = {"name": name, "team": team, "expires": expires}
    body["models"] = None if models is None else _names(models)
    body["tiers"] = None if tiers is None else _names(tiers)
    body["data"] = "private-only" if private_only else "any"
    body["budget"] = None if budget_usd is None else {"usd": budget_usd, "per": per}
    body["limits"] = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency}
    body["limits"] |= {"max_output_tokens": max_output_tokens, "max_choices": max_choices}
    body["limits"] |= {"max_images": max_images, "max_reasoning_effort": max_reasoning_effort}
    body["limits"] |= {"without_redis": without_redis}
    body["metadata"] = None if note is None else {"note": note}
    run_to_end(create_key(file_or_default(config, os.environ), os.environ, body, as_json=as_json))


@keys.command("list", epilog="Example: tiergate keys list --json")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """List the keys that were made, revoked ones too; what opens anything is not shown."""
    from tiergate.app.keys import list_keys
    from tiergate.app.starting import file_or_default

    run_to_end(list_keys(file_or_default(config, os.environ), os.environ, as_json=as_json))


@keys.command("rotate", epilog="Example: tiergate keys rotate web --grace 24h")
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the old one is still good, such as 24h.")] = "0s",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret and print that, once; name, budget and records stay."""
    from tiergate.app.keys import change_key
    from tiergate.app.starting import file_or_default

    loaded, body = file_or_default(config, os.environ), {"grace": grace}
    run_to_end(change_key(loaded, os.environ, name, "rotate", body, as_json=as_json))


@keys.command("revoke", epilog="Example: tiergate keys revoke web")
def revoke(name: Name, config: Config = None, as_json: AsJson = False) -> None:
    """Take a key out of use, at once and for good."""
    from tiergate.app.keys import change_key
    from tiergate.app.starting import file_or_default

    loaded = file_or_default(config, os.environ)
    run_to_end(change_key(loaded, os.environ, name, "revoke", {}, as_json=as_json))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]

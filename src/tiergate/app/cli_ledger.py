"""The command line's part that asks the ledger: `tiergate report` and `tiergate entries`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tiergate.app.options import AsJson, Config, run_to_end

FAILED = 1

report = typer.Typer(
    help="Answer from the ledger: what was spent and what was not, how long calls took.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
By = Annotated[
    str,
    typer.Option(help="Groups, with commas between: key, team, tag, model, class, target, tier, day."),
]
From = Annotated[
    str, typer.Option("--from", help="A day, a moment such as 2026-11-01T12:00, or how long ago, such as 7d.")
]
To = Annotated[str | None, typer.Option("--to", help="As --from, a day included. Else now.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]


@report.command("spend", epilog="Example: tiergate report spend --by model,tier --from 7d")
def report_spend(
    by: By = "model,target",
    begin: From = "30d",
    end: To = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Say what was used and spent; what lapsed and what has no price is said apart."""
    from tiergate.app import reporting
    from tiergate.app.starting import file_or_default

    loaded, form = file_or_default(config, os.environ), _form(as_json, as_csv)
    reporting.report_spend(loaded, by=by, begin=begin, end=end, form=form)


@report.command("savings", epilog="Example: tiergate report savings --by model --from 7d")
def report_savings(
    by: By = "model",
    begin: From = "30d",
    end: To = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="What a cache would have answered of the calls that a dry run marked."
        ),
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Say what was not spent: answers given again, providers' cached input, private answers."""
    from tiergate.app import saving
    from tiergate.app.starting import file_or_default

    loaded, form = file_or_default(config, os.environ), _form(as_json, as_csv)
    tell = saving.report_dry_run if dry_run else saving.report_savings
    tell(loaded, by=by, begin=begin, end=end, form=form)


@report.command("prefixes", epilog="Example: tiergate report prefixes --by model --within 5m")
def report_prefixes(
    by: By = "model",
    begin: From = "30d",
    end: To = None,
    within: Annotated[
        str, typer.Option("--within", help="How long ago the same beginning may have been sent, such as 10m.")
    ] = "10m",
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Say how much of prompts had been sent before, and how much of that providers had kept."""
    from tiergate.app import reporting
    from tiergate.app.starting import file_or_default

    loaded, form = file_or_default(config, os.environ), _form(as_json, as_csv)
    reporting.report_prefixes(loaded, by=by, begin=begin, end=end, within=within, form=form)


@report.command("latency", epilog="Example: tiergate report latency --by target --from 24h --json")
def report_latency(
    by: By = "target",
    begin: From = "30d",
    end: To = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Say how long successful calls took to their first token and in all: P50, P95, P99."""
    from tiergate.app import reporting
    from tiergate.app.starting import file_or_default

    loaded, form = file_or_default(config, os.environ), _form(as_json, as_csv)
    reporting.report_latency(loaded, by=by, begin=begin, end=end, form=form)


@report.command("budgets", epilog="Example: tiergate report budgets --json")
def report_budgets(config: Config = None, as_json: AsJson = False) -> None:
    """Say what is spent, held and left of every budget now."""
    from tiergate.app.entries import report_budgets as ask
    from tiergate.app.starting import file_or_default

    run_to_end(ask(file_or_default(config, os.environ), os.environ, as_json=as_json))


@report.command("reconcile", epilog="Example: tiergate report reconcile usage.csv --provider openai")
def report_reconcile(
    file: Annotated[Path, typer.Argument(help="CSV: day, model, cost_usd and maybe tokens.")],
    provider: Annotated[
        str | None, typer.Option(help="Whose it is, by its name in the settings. Else a column provider.")
    ] = None,
    zone: Annotated[str, typer.Option(help="Time zone of its days.")] = "UTC",
    settle: Annotated[
        bool, typer.Option("--settle-lapsed", help="Settle what a dead process left by what was billed.")
    ] = False,
    today_too: Annotated[
        bool, typer.Option("--today-too", help="With it: also of the day that is not over yet.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Hold a provider's usage export against the ledger, per day and model; exit status 1 if they differ."""
    from tiergate.app.reconciling import report_reconcile as hold
    from tiergate.app.starting import file_or_default

    loaded = file_or_default(config, os.environ)
    agrees = run_to_end(
        hold(
            loaded,
            os.environ,
            file,
            provider=provider,
            zone=zone,
            settle=settle,
            today_too=today_too,
            as_json=as_json,
        )
    )
    if not agrees:
        raise typer.Exit(FAILED)


entries = typer.Typer(
    help="Look at calls in the ledger, and correct what is known better now.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_A_CALL = "01m8c338y13rsr6aaefns3hvce"
CallId = Annotated[str, typer.Argument(metavar="CALL", help="A call's id, as x-request-id says it.")]
AttemptNumber = Annotated[int, typer.Option("--attempt", min=1, help="Which of its attempts.")]


@entries.command("list", epilog="Example: tiergate entries list --key web --from 1h")
def entries_list(
    key: Annotated[str | None, typer.Option(help="Of this key only.")] = None,
    team: Annotated[str | None, typer.Option(help="Of this team only.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag only.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Of this asked model only.")] = None,
    batch: Annotated[str | None, typer.Option(help="Of the lines of this batch only.")] = None,
    lapsed: Annotated[
        bool, typer.Option("--lapsed", help="Only those that a dead process left unsettled.")
    ] = False,
    begin: Annotated[str | None, typer.Option("--from", help="Received since, such as 7d.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this call.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List calls, the newest first; an amount with * is a worst case that nobody has settled."""
    from tiergate.app.entries import list_entries
    from tiergate.app.starting import file_or_default

    filters = {
        "key": key,
        "team": team,
        "tag": tag,
        "model": model,
        "batch": batch,
        "state": "lapsed" if lapsed else None,
        "from": begin,
        "after": after,
        "limit": limit,
    }
    run_to_end(list_entries(file_or_default(config, os.environ), os.environ, filters, as_json=as_json))


@entries.command("show", epilog="Example: tiergate entries show 01m8c338y13rsr6aaefns3hvce")
def entries_show(call: CallId, config: Config = None, as_json: AsJson = False) -> None:
    """Show one call with its attempts and what they cost."""
    from tiergate.app.entries import show_entry
    from tiergate.app.starting import file_or_default

    run_to_end(show_entry(file_or_default(config, os.environ), os.environ, call, as_json=as_json))


@entries.command(
    "resolve", epilog="Example: tiergate entries resolve 01m8c338y13rsr6aaefns3hvce --cost-usd 0.02"
)
def entries_resolve(
    call: CallId,
    cost_usd: Annotated[str, typer.Option(help="What it did cost, as the provider's records say.")],
    attempt: AttemptNumber = 1,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Settle an attempt that a dead process left, by what it is now known to have cost."""
    from tiergate.app.entries import change_entry
    from tiergate.app.starting import file_or_default

    body, loaded = {"attempt": attempt, "cost_usd": cost_usd}, file_or_default(config, os.environ)
    run_to_end(change_entry(loaded, os.environ, call, "resolve", body, as_json=as_json))


@entries.command(
    "adjust",
    epilog="Example: tiergate entries adjust 01m8c338y13rsr6aaefns3hvce --delta-usd -0.2 --reason refund",
)
def entries_adjust(
    call: CallId,
    delta_usd: Annotated[str, typer.Option(help="How much more it did cost, or with a minus less.")],
    reason: Annotated[str, typer.Option(help="Why; it stays beside the call.")],
    attempt: AttemptNumber = 1,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Correct what a settled attempt cost; the settlement stays, the correction stands beside it."""
    from tiergate.app.entries import change_entry
    from tiergate.app.starting import file_or_default

    body = {"attempt": attempt, "delta_usd": delta_usd, "reason": reason}
    loaded = file_or_default(config, os.environ)
    run_to_end(change_entry(loaded, os.environ, call, "adjust", body, as_json=as_json))


def _form(as_json: bool, as_csv: bool) -> str:
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    return "json" if as_json else "csv" if as_csv else "table"

"""`tiergate batch …`: inputs of many lines, worked by the gateway that runs, or by the command itself."""

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiergate.app.options import AsJson, Config, run_to_end

if TYPE_CHECKING:
    from tiergate.config import Loaded

batch = typer.Typer(
    name="batch",
    help="Ask the lines of a file: at any size, within a budget, and on after any interruption.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Remote = Annotated[
    str | None,
    typer.Option("--gateway", help="URL of another gateway; its key comes from $TIERGATE_API_KEY."),
]
BatchId = Annotated[str, typer.Argument(help="As `tiergate batch status` lists them.")]
Concurrency = Annotated[
    int | None, typer.Option(min=1, max=10_000, help="Lines asked at one time at most. Else 100.")
]


@batch.command("run", epilog="Example: tiergate batch run in.jsonl -o out.jsonl -m gpt-4.1 --budget-usd 5")
def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="OpenAI batch lines, {messages} or {prompt} lines, a JSON array, CSV; `-`: standard input.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Answers, in the order of the input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Asked by all lines, whatever they name.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A template such as 'Translate: {text}', for CSV and objects.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before each prompt.")] = None,
    form: Annotated[
        str | None, typer.Option(help="batch, messages, prompts, array, csv or text; else it is told.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of each answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Sampling temperature.")] = None,
    budget_usd: Annotated[
        str | None, typer.Option(help="The most that it may cost; given again and higher, it goes on.")
    ] = None,
    concurrency: Concurrency = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the estimate.")] = False,
    flat: Annotated[
        bool, typer.Option("--flat", help="Write the input's fields with answer, usage, cost and error.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Send nothing if any row asks nothing.")] = False,
    by_prefix: Annotated[
        bool, typer.Option("--by-prefix", help="Ask lines together whose prompts begin alike.")
    ] = False,
    private_only: Annotated[
        bool, typer.Option("--private-only", help="No hosted target may answer.")
    ] = False,
    tag: Annotated[str | None, typer.Option(help="Recorded with each call; reports can go by it.")] = None,
    window: Annotated[str, typer.Option(help="What has not ended by then expires.")] = "24h",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="A new batch, though there is one of this input.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; needs a gateway that runs.")] = False,
    cancel_on_exit: Annotated[bool, typer.Option("--cancel-on-exit", help="Ctrl-C cancels it.")] = False,
    gateway: Remote = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ask the lines of a file. Given again, the same command goes on where it was.

    A gateway that runs on this machine works the batch, and goes on whatever becomes of this command; without
    one the command works it itself.

    Exit status: 0 all answered, 1 some failed, 2 a wrong option, 3 stopped by a budget, 130 after Ctrl-C.
    """
    from tiergate.app.jobs.run import RunWish, run_batch
    from tiergate.app.jobs.wishes import Form, Wish

    forms = [one.value for one in Form]
    if form is not None and form not in forms:
        raise typer.BadParameter(f"--form is one of {', '.join(forms)}")
    if output is None and not dry_run:
        raise typer.BadParameter("--output (-o) says where the answers go; only --dry-run needs none")
    given = {"max_tokens": max_tokens, "temperature": temperature}
    wish = RunWish(
        source=None if source == "-" else Path(source),
        output=output,
        input=Wish(
            form=None if form is None else Form(form),
            prompt=prompt,
            model=model,
            system=system,
            fields={name: value for name, value in given.items() if value is not None},
        ),
        budget_usd=_usd(budget_usd),
        concurrency=concurrency,
        is_strict=strict,
        by_prefix=by_prefix,
        is_private=private_only,
        tag=tag,
        window=window,
        is_fresh=fresh,
        is_dry=dry_run,
        is_flat=flat,
        is_detached=detach,
        cancel_on_exit=cancel_on_exit,
        gateway=gateway,
        as_json=as_json,
    )
    status = run_to_end(run_batch(_loaded(config, gateway), os.environ, wish))
    if status:
        raise typer.Exit(status)


@batch.command("status", epilog="Example: tiergate batch status --json")
def status(
    batch_id: Annotated[str | None, typer.Argument(help="One of them; else the newest are listed.")] = None,
    gateway: Remote = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List batches, or show one as it is now."""
    from tiergate.app.jobs.manage import show

    run_to_end(show(_loaded(config, gateway), os.environ, batch_id, gateway, as_json=as_json))


@batch.command("output", epilog="Example: tiergate batch output batch_01… -o so-far.jsonl")
def output(
    batch_id: BatchId,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="Else standard output.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="What has failed instead.")] = False,
    all_lines: Annotated[bool, typer.Option("--all", help="Both, in one.")] = False,
    gateway: Remote = None,
    config: Config = None,
) -> None:
    """Write what is answered by now, in the order of the input, also while it runs."""
    from tiergate.app.jobs.manage import write_output

    which = "errors" if errors else "all" if all_lines else "answers"
    run_to_end(write_output(_loaded(config, gateway), os.environ, batch_id, to, gateway, which=which))


@batch.command("cancel", epilog="Example: tiergate batch cancel batch_01…")
def cancel(batch_id: BatchId, gateway: Remote = None, config: Config = None, as_json: AsJson = False) -> None:
    """End a batch. What is asked now is finished and kept, what is not is not asked."""
    from tiergate.app.jobs.manage import act

    run_to_end(act(_loaded(config, gateway), os.environ, f"{batch_id}/cancel", {}, gateway, as_json=as_json))
    if not as_json:
        print(f"{batch_id} is cancelled; what is answered is kept.")


@batch.command(
    "retry-failed", epilog="Example: tiergate batch retry-failed batch_01… --code upstream_timeout"
)
def retry_failed(
    batch_id: BatchId,
    code: Annotated[
        list[str] | None, typer.Option("--code", help="Only lines that failed with this; may be repeated.")
    ] = None,
    gateway: Remote = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ask lines again that failed; `tiergate batch status ID` counts them by their codes."""
    from tiergate.app.jobs.manage import act, retry_body

    asked: dict[str, Any] = retry_body(code)
    path = f"{batch_id}/retry"
    found = run_to_end(act(_loaded(config, gateway), os.environ, path, asked, gateway, as_json=as_json))
    if not as_json:
        print(f"{found['retried']:,} lines of {batch_id} are asked again.")


@batch.command("resume", epilog="Example: tiergate batch resume batch_01… --budget-usd 10")
def resume(
    batch_id: BatchId,
    budget_usd: Annotated[str | None, typer.Option(help="Another budget for all of it.")] = None,
    concurrency: Concurrency = None,
    gateway: Remote = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a batch go on that stands still, perhaps with another budget or concurrency."""
    from tiergate.app.jobs.manage import act

    usd = _usd(budget_usd)
    ours = {"budget_usd": None if usd is None else str(usd), "concurrency": concurrency}
    body = {"tiergate": {name: value for name, value in ours.items() if value is not None}}
    run_to_end(act(_loaded(config, gateway), os.environ, batch_id, body, gateway, as_json=as_json))
    if not as_json:
        print(f"{batch_id} goes on.")


def _loaded(config: Path | None, gateway: str | None) -> "Loaded | None":
    from tiergate.app.starting import file_or_found

    return None if gateway is not None else file_or_found(config, os.environ)


def _usd(given: str | None) -> Decimal | None:
    if given is None:
        return None
    try:
        amount = Decimal(given)
    except InvalidOperation:
        amount = Decimal(0)
    if not amount.is_finite() or amount <= 0:
        raise typer.BadParameter("--budget-usd is an amount of USD above 0, such as 5 or 0.25")
    return amount

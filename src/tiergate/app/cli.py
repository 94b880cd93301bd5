"""The command line. Each command imports what it needs when it runs, so that `--help` is quick."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tiergate.app.cli_batch import batch
from tiergate.app.cli_cache import cache
from tiergate.app.cli_keys import keys
from tiergate.app.cli_ledger import entries, report
from tiergate.app.cli_targets import targets
from tiergate.app.options import AsJson, Config, run_to_end
from tiergate.core import VERSION, TiergateError

FAILED = 1
INTERRUPTED = 130

cli = typer.Typer(
    help="A hybrid LLM gateway: hosted APIs and private servers behind one OpenAI-compatible endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line: 0 done, 1 failed, 2 wrong usage, 3 stopped by a budget, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows another, and nothing fails for it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        cli()
    except TiergateError as error:
        from tiergate.web import sentence_of

        print(sentence_of(error), file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left (`| head`); nothing more can be said, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    sys.exit(0)


@cli.callback(invoke_without_command=True)
def version(
    show: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Print the version."""
    if show:
        print(f"tiergate {VERSION}")
        raise typer.Exit


@cli.command(epilog="Example: tiergate serve --config tiergate.yaml")
def serve(
    config: Config = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve; this version has one.")] = 1,
    grace_s: Annotated[
        float,
        typer.Option(min=0, help="Seconds on SIGTERM to go on taking calls while not ready, for a balancer."),
    ] = 0,
    drain_s: Annotated[
        float, typer.Option(min=0, help="Seconds that running calls get to finish on SIGTERM.")
    ] = 30,
) -> None:
    """Run the gateway. SIGTERM finishes what runs, a second one ends it now, SIGHUP reloads the settings."""
    from tiergate.app.serving import serve as run
    from tiergate.app.starting import file_or_found
    from tiergate.core import CannotStart

    if workers > 1:
        raise CannotStart(
            "This version starts one process, which serves thousands of calls a second. For more, run "
            "several gateways with one `store` and one `redis` behind a balancer: docs/how-to/postgresql.md."
        )
    loaded = file_or_found(config, os.environ)
    run_to_end(run(loaded, environ=os.environ, grace_s=grace_s, drain_s=drain_s, say=_say))


@cli.command(epilog='Example: tiergate chat "What is a lease?" -m deepseek-v3.2 --stream')
def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads it from standard input.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model of the settings, or provider/upstream-name.")
    ],
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Sampling temperature.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question. Goes through the running gateway if there is one, else serves itself."""
    from tiergate.app.asking import ask
    from tiergate.app.starting import file_or_found

    if stream and as_json:
        raise typer.BadParameter("--stream and --json exclude each other")
    text = _text(prompt)
    if not text.strip():
        raise typer.BadParameter("there is nothing to ask; give a question, or `-` to read one")
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    given = {"max_tokens": max_tokens, "temperature": temperature}
    fields = {name: value for name, value in given.items() if value is not None}
    loaded = file_or_found(config, os.environ)
    if not run_to_end(ask(loaded, messages, model=model, fields=fields, stream=stream, as_json=as_json)):
        raise typer.Exit(FAILED)


@cli.command(epilog="Example: tiergate estimate -m gpt-4.1 --prompt-tokens 3000 --completion-tokens 500")
def estimate(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="What the others are compared with; none: no comparison."),
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=0, help="Tokens of the question.")] = None,
    completion_tokens: Annotated[int, typer.Option(min=0, help="Tokens of the answer.")] = 500,
    cached_tokens: Annotated[
        int, typer.Option(min=0, help="How many of the question's the provider's cache holds.")
    ] = 0,
    text: Annotated[
        str | None,
        typer.Option(help="The question itself instead of its tokens; `-` reads it from standard input."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say what a call would cost at each model: input, cached input and output apart."""
    from tiergate.app.estimating import show_estimate

    if (prompt_tokens is None) is (text is None):
        raise typer.BadParameter("give either --prompt-tokens or --text")
    body: dict[str, Any] = {"completion_tokens": completion_tokens, "cached_tokens": cached_tokens}
    if text is None:
        body["prompt_tokens"] = prompt_tokens
    else:
        body["messages"] = [{"role": "user", "content": _text(text)}]
    if model is not None:
        body["model"] = model
    show_estimate(config, os.environ, body, as_json=as_json)


@cli.command(epilog="Example: tiergate init && tiergate serve")
def init(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Else ./tiergate.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a commented settings file from what is found: keys in the environment, local model servers."""
    from tiergate.app.listing import counted
    from tiergate.app.starting import write_found

    path, count = write_found(output, os.environ, force=force)
    providers = counted(count, "provider")
    print(f"{path} is written, with {providers}; keys stay in the environment. Next: tiergate serve")


@cli.command(epilog="Example: tiergate models --json")
def models(config: Config = None, as_json: AsJson = False) -> None:
    """List the models of the settings, the targets behind them and their prices."""
    from tiergate.app.listing import list_models
    from tiergate.app.starting import file_or_found

    list_models(file_or_found(config, os.environ), as_json=as_json)


@cli.command(epilog="Example: tiergate providers --json")
def providers(
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead.")] = False,
) -> None:
    """List the providers and servers that are known without settings: addresses, keys, prices."""
    from tiergate.app.vendors import list_vendors

    if as_json and markdown:
        raise typer.BadParameter("--json and --markdown exclude each other")
    list_vendors("json" if as_json else "markdown" if markdown else "table")


@cli.command(epilog="Example: tiergate check --config tiergate.yaml")
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Validate the settings without starting; exit status 1 if something is wrong."""
    from tiergate.app.listing import check_settings

    if not check_settings(config, as_json=as_json):
        raise typer.Exit(FAILED)


@cli.command(epilog="Example: tiergate doctor --call")
def doctor(
    config: Config = None,
    call: Annotated[
        bool, typer.Option("--call", help="Ask each provider one question of one token; may cost a little.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at settings, data folder, clock and every provider; exit status 1 if something needs mending."""
    from tiergate.app.doctor import run_doctor

    if not run_doctor(config, os.environ, call=call, as_json=as_json):
        raise typer.Exit(FAILED)


@cli.command(epilog="Example: tiergate schema > tiergate.schema.json")
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead.")] = False,
) -> None:
    """Print the JSON Schema of the settings, for editors."""
    from tiergate.app.listing import print_schema

    print_schema(markdown=markdown)


@cli.command(epilog="Example: tiergate mock --port 8000 --script examples/mock-script.yaml")
def mock(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    script: Annotated[Path | None, typer.Option(help="What it answers; see docs/reference/mock.md.")] = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Behave like a private engine instead of a hosted API.")
    ] = False,
) -> None:
    """Run a scripted provider or engine, for demos and load tests."""
    from tiergate.app.mocking import mock as run

    run_to_end(run(port=port, script=script, engine=engine))


@cli.command(epilog="Example: tiergate demo --keep")
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running and print the URLs.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=5, max=50, help="How long the traffic takes.")] = 25,
    as_json: AsJson = False,
) -> None:
    """See the whole product on this machine, without any key: scripted providers, a real gateway."""
    from tiergate.app.demo import demo as run

    if not run_to_end(run(keep=keep, seconds=seconds, as_json=as_json)):
        raise typer.Exit(FAILED)


@cli.command(epilog="Example: tiergate backup /var/backups/tiergate-2026-11-26")
def backup(
    folder: Annotated[
        Path, typer.Argument(help="A folder that holds no backup yet; made where there is none.")
    ],
    config: Config = None,
) -> None:
    """Copy the ledger, each database at one moment, also while the gateway runs; the copies are checked."""
    from tiergate.app.reporting import run_backup
    from tiergate.app.starting import file_or_default

    run_backup(file_or_default(config, os.environ), folder)


@cli.command(epilog="Example: tiergate restore /var/backups/tiergate-2026-11-26")
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `tiergate backup` wrote.")],
    config: Config = None,
) -> None:
    """Put a backup in the place of the ledger, while no gateway runs; what was there is kept beside it."""
    from tiergate.app.reporting import run_restore
    from tiergate.app.starting import file_or_default

    run_restore(file_or_default(config, os.environ), folder)


@cli.command("explain", epilog="Example: tiergate explain -m deepseek-v3.2")
def explain(
    model: Annotated[str, typer.Option("--model", "-m", help="As a caller would ask for it.")],
    private_only: Annotated[
        bool, typer.Option("--private-only", help="As for a call with `x-tiergate-data: private-only`.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say where a call would go and why, and what its provider would be sent beside the caller's fields."""
    from tiergate.app.explaining import explain as run
    from tiergate.app.starting import file_or_default

    loaded = file_or_default(config, os.environ)
    run_to_end(run(loaded, os.environ, model, private_only=private_only, as_json=as_json))


@cli.command("erase", epilog="Example: tiergate erase --team web")
def erase(
    team: Annotated[str | None, typer.Option("--team", help="Of the keys of this team.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Of this key, which has no team.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete all text of a tenant: cached answers, those of receipts, batches, files; unlink its hashes."""
    from tiergate.app.caching import erase_tenant
    from tiergate.app.starting import file_or_default

    wish = {name: value for name, value in (("team", team), ("key", key)) if value is not None}
    run_to_end(erase_tenant(file_or_default(config, os.environ), os.environ, wish, as_json=as_json))


cli.add_typer(batch, name="batch")
cli.add_typer(report, name="report")
cli.add_typer(entries, name="entries")
cli.add_typer(keys, name="keys")
cli.add_typer(targets, name="targets")
cli.add_typer(cache, name="cache")

importing = typer.Typer(
    name="import",
    help="Write the settings of another gateway as ours.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cli.add_typer(importing, name="import")


@importing.callback()
def _import() -> None:
    """Write the settings of another gateway as ours."""


@importing.command("litellm", epilog="Example: tiergate import litellm config.yaml && tiergate doctor")
def import_litellm(
    file: Annotated[Path, typer.Argument(help="A LiteLLM proxy's config.yaml.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; `-`: standard output. Else ./tiergate.yaml."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a LiteLLM proxy's config.yaml as settings of ours, and say what has no counterpart."""
    from tiergate.app.litellm import import_litellm as run

    run(file, output, force=force, as_json=as_json)


def _text(given: str) -> str:
    """Give a text from the command line, or for `-` from standard input."""
    try:
        data = sys.stdin.buffer.read() if given == "-" else os.fsencode(given)
        return data.decode()
    except UnicodeError:
        raise typer.BadParameter("the text is not UTF-8; convert it, e.g. with iconv -t UTF-8") from None


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()

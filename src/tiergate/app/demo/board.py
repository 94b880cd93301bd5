"""What the demo shows: a live table while calls run, and the summary at the end."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tiergate.app.demo.tally import Tally


def live_panel(tally: Tally, *, elapsed_s: float, planned: int) -> RenderableType:
    """Give the table of the moment."""
    done = len(tally.calls)
    head = Text.assemble(
        (" Tiergate demo ", "bold reverse"),
        f"  {elapsed_s:4.0f} s   {done} of {planned} calls ended   ",
        f"{tally.failed_attempts} attempts failed   {tally.avoided()['calls']} from the cache   ",
        (f"${tally.spent_usd:.4f} spent", "bold"),
    )
    return Group(head, _tier_table(tally.tiers()))


def plain_line(tally: Tally, *, elapsed_s: float, planned: int) -> str:
    """Say the moment in one line, where there is no terminal."""
    tiers = ", ".join(f"{row['calls']} {tier}" for tier, row in tally.tiers().items())
    ended = f"{len(tally.calls)} of {planned} calls ended ({tiers})"
    return f"{elapsed_s:5.1f} s  {ended}  ${tally.spent_usd:.4f} spent"


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what happened and what it cost."""
    calls = summary["calls"]
    console.print()
    console.rule("[bold]What happened", align="left")
    ended = ", ".join(f"{count} {end}" for end, count in sorted(calls["ended"].items()))
    console.print(
        f"{calls['planned']} calls with real prompts, arriving as in a real service's trace; "
        f"{calls['repeated']} of them were exact repeats. Ended: {ended}."
    )
    console.print(
        f"{summary['failed_attempts']} attempts failed on purpose; {summary['failovers']} calls went on to "
        "another target before their first content, and their callers saw nothing of it."
    )
    console.print()
    console.print(_tier_table(summary["tiers"]))
    console.print()
    console.rule("[bold]What it cost", align="left")
    console.print(_spend_table(summary["models"]))
    console.print(
        f"Together [bold]${summary['spent_usd']:.4f}[/bold] for {summary['input_tokens']:,} tokens in and "
        f"{summary['output_tokens']:,} out; the ledger says ${summary['ledger_usd']:.4f}. "
        "Private servers invoice nothing per call: their cost is their hours."
    )
    avoided = summary["avoided"]
    console.print(
        f"{avoided['calls']} calls asked what had been asked before and were given that answer for nothing: "
        f"{avoided['tokens']:,} tokens and [bold]${avoided['usd']:.4f}[/bold] avoided."
    )
    console.print()
    console.print(_elsewhere_table(summary))
    console.print(
        "[dim]Prices are the reference figures of a published comparison, not verified. Providers and engine "
        "are scripted and run on this machine; the gateway, its ledger and every byte between are real.[/dim]"
    )


def _tier_table(tiers: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Latency by tier, ms: p50 / p95 / p99", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("tier", no_wrap=True)
    for name in ("calls", "first token", "whole answer", "tokens in / out", "spent"):
        table.add_column(name, justify="right", no_wrap=True)
    for tier, row in tiers.items():
        table.add_row(
            tier,
            f"{row['calls']:,}",
            " / ".join(_ms(value) for value in row["ttft_ms"].values()),
            " / ".join(_ms(value) for value in row["total_ms"].values()),
            f"{row['input_tokens'] / 1000:,.1f}k / {row['output_tokens'] / 1000:,.1f}k",
            f"${row['spent_usd']:.4f}",
        )
    return table


def _spend_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Spend by model", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("model asked for")
    table.add_column("answered by")
    table.add_column("calls", justify="right")
    table.add_column("spent", justify="right")
    for model, targets in models.items():
        for place, (target, row) in enumerate(targets.items()):
            asked = model if place == 0 else ""
            table.add_row(asked, target, f"{row['calls']:,}", f"${row['spent_usd']:.4f}")
    return table


def _elsewhere_table(summary: Mapping[str, Any]) -> Table:
    table = Table(title="The same tokens, all at one hosted model", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("all at")
    table.add_column("would cost", justify="right")
    table.add_column("this run against it", justify="right")
    for model, usd in summary["elsewhere_usd"].items():
        difference = usd - summary["spent_usd"]
        said = f"${difference:.4f} saved" if difference >= 0 else f"${-difference:.4f} more"
        table.add_row(model, f"${usd:.4f}", said)
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"

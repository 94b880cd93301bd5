"""`tiergate doctor`: looks at everything that a call needs, and says of each fault what mends it."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from tiergate.app.gateway import Gateway
from tiergate.app.ledgers import ledger_place
from tiergate.app.starting import FOUND, file_or_found
from tiergate.catalog import Vendor, data_problems
from tiergate.config import Loaded, Settings, fill
from tiergate.core import (
    CannotStart,
    SettingsError,
    StorageUnavailable,
    Tier,
    TiergateError,
    UpstreamAuthFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.store import damage, find_owner
from tiergate.upstream import Probe, Provider, open_transport, probe
from tiergate.wire import dumps

_FREE_BYTES_MIN: Final = 1 << 30
_CLOCK_OFF_S: Final = 30.0


class Verdict(StrEnum):
    """How something was found."""

    GOOD = "good"
    NOTE = "note"
    """It works; somebody should know."""
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at, what was seen, and where it is bad what to do."""

    subject: str
    verdict: Verdict
    seen: str
    remedy: str | None = None


async def examine(loaded: Loaded, *, environ: Mapping[str, str], call: bool) -> list[Finding]:
    """Look at settings, data folder, clock and every server of every provider.

    `call`: ask each provider's first target one question of one token, too, which may cost a fraction of a
    cent.
    """
    findings = [
        *_settings(loaded),
        *_package(),
        *_data_folder(loaded.settings.data_dir),
        *_store(loaded.settings),
    ]
    vendors, providers = fill.vendors(loaded.settings), fill.providers(loaded.settings)
    transport = open_transport()
    try:
        probes = await asyncio.gather(*[probe(provider, transport) for provider in providers.values()])
    finally:
        await transport.aclose()
    asked = list(zip(providers.items(), probes, strict=True))
    findings += _clock([one for (_, provider), seen in asked if provider.tier is Tier.HOSTED for one in seen])
    for (name, provider), seen in asked:
        targets = _targets(loaded, name)
        for one in seen:
            findings += _server(provider, one, vendors.get(name), targets)
    if call:
        reached = [name for (name, _), seen in asked if not all(map(_is_dead, seen))]
        findings += await _calls(loaded, environ, reached)
    return findings


def run_doctor(config: Path | None, environ: Mapping[str, str], *, call: bool, as_json: bool) -> bool:
    """Examine and print; tell whether nothing is bad."""
    try:
        loaded = file_or_found(config, environ)
    except (SettingsError, CannotStart) as error:
        findings = [Finding(subject="settings", verdict=Verdict.BAD, seen=str(error))]
    else:
        findings = asyncio.run(examine(loaded, environ=environ, call=call))
    if as_json:
        print(dumps({"ok": _is_well(findings), "findings": [asdict(one) for one in findings]}).decode())
    else:
        _print(findings)
    return _is_well(findings)


def _is_well(findings: Sequence[Finding]) -> bool:
    return all(finding.verdict is not Verdict.BAD for finding in findings)


def _print(findings: Sequence[Finding]) -> None:
    marks = {
        Verdict.GOOD: "[green]good[/green]",
        Verdict.NOTE: "[yellow]note[/yellow]",
        Verdict.BAD: "[red]BAD [/red]",
    }
    console = Console(highlight=False)
    for finding in findings:
        console.print(
            f"{marks[finding.verdict]}  [bold]{escape(finding.subject)}[/bold]: {escape(finding.seen)}",
            soft_wrap=True,
        )
        if finding.remedy is not None:
            console.print(f"      what to do: {escape(finding.remedy)}", soft_wrap=True)
    bad = sum(finding.verdict is Verdict.BAD for finding in findings)
    console.print(f"\n{bad} of {len(findings)} need mending." if bad else "\nNothing needs mending.")


def _settings(loaded: Loaded) -> list[Finding]:
    where = str(loaded.path) if loaded.path is not None else f"none; they are made of {FOUND}"
    count = f"providers: {len(loaded.settings.providers)}, models: {len(loaded.settings.models)}"
    findings = [Finding(subject="settings", verdict=Verdict.GOOD, seen=f"{where}: {count}")]
    return findings + [
        Finding(subject="settings", verdict=Verdict.NOTE, seen=notice) for notice in loaded.notices
    ]


def _package() -> list[Finding]:
    """Look at the prices and the facts of models that come with the package."""
    return [
        Finding(
            subject="package",
            verdict=Verdict.BAD,
            seen=problem,
            remedy="Under budgets, calls whose price is not known otherwise are refused.",
        )
        for problem in data_problems()
    ]


def _store(settings: Settings) -> list[Finding]:
    if settings.store is None:
        return []
    subject = "store"
    try:
        place = ledger_place(settings)
        try:
            place.past()
        except CannotStart as error:  # it answers, and nobody has used it
            return [Finding(subject=subject, verdict=Verdict.NOTE, seen=str(error))]
    except (CannotStart, StorageUnavailable) as error:
        remedy = "docs/how-to/postgresql.md tells what a replica needs."
        return [Finding(subject=subject, verdict=Verdict.BAD, seen=str(error), remedy=remedy)]
    return [Finding(subject=subject, verdict=Verdict.GOOD, seen="the database answers and holds a ledger")]


def _data_folder(folder: Path) -> list[Finding]:
    subject = "data folder"
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(existing).free
    try:
        owner = find_owner(folder)
    except CannotStart as error:
        return [
            Finding(subject=subject, verdict=Verdict.BAD, seen=str(error), remedy="Give it to this user.")
        ]
    if owner is not None:
        state = f"{folder} is served by process {owner.pid} at {owner.address or 'an address not known yet'}"
    elif folder.exists():
        state = f"{folder} is there and nobody serves it"
    else:
        state = f"{folder} will be made"
    findings = [
        Finding(subject=subject, verdict=Verdict.GOOD, seen=f"{state}; {free / 2**30:.0f} GiB are free")
    ]
    if free < _FREE_BYTES_MIN:
        said = f"only {free / 2**20:.0f} MiB are free where {folder} is"
        remedy = "Free some space: on a full disk no call that can cost is taken."
        findings.append(Finding(subject=subject, verdict=Verdict.BAD, seen=said, remedy=remedy))
    broken = damage(folder)
    if broken is not None:
        remedy = "Put a backup in its place (tiergate restore FOLDER); what is there now is kept."
        findings.append(Finding(subject=subject, verdict=Verdict.BAD, seen=broken, remedy=remedy))
    return findings


def _clock(probes: Sequence[Probe]) -> list[Finding]:
    """Hold our clock against the providers' own: one of them may be wrong, all of them are not."""
    ahead = sorted(one.ahead_s for one in probes if one.ahead_s is not None)
    if not ahead:
        said = "no hosted provider told its time, so it was not held against any"
        return [Finding(subject="clock", verdict=Verdict.NOTE, seen=said)]
    off_s = ahead[len(ahead) // 2]
    if abs(off_s) <= _CLOCK_OFF_S:
        return [
            Finding(
                subject="clock", verdict=Verdict.GOOD, seen=f"within {abs(off_s):.0f} s of the providers'"
            )
        ]
    said = f"{abs(off_s):.0f} s {'behind' if off_s > 0 else 'ahead of'} the providers'"
    remedy = "Set it (timedatectl set-ntp true): prices and budgets go by it."
    return [Finding(subject="clock", verdict=Verdict.BAD, seen=said, remedy=remedy)]


def _targets(loaded: Loaded, provider: str) -> list[str]:
    named = (target for model in loaded.settings.models.values() for target in model.targets)
    mine = [target.partition("/")[2] for target in named if target.partition("/")[0] == provider]
    return [model for model in dict.fromkeys(mine) if model != "*"]


def _server(provider: Provider, seen: Probe, vendor: Vendor | None, models: Sequence[str]) -> list[Finding]:
    subject = f"{provider.name} ({seen.server})"
    if seen.failure is not None:
        return [_failed(subject, provider, seen, vendor)]
    key = f", key {provider.credential.shown} accepted" if provider.credential is not None else ""
    listed = "" if seen.models is None else f", models listed: {len(seen.models)}"
    findings = [
        Finding(subject=subject, verdict=Verdict.GOOD, seen=f"answers in {seen.took_ms:.0f} ms{key}{listed}")
    ]
    for model in models:
        if seen.models and model not in seen.models and f"models/{model}" not in seen.models:
            said = f"does not list {model!r}, which the settings name; it may be an alias"
            findings.append(Finding(subject=subject, verdict=Verdict.NOTE, seen=said))
    if vendor is not None and vendor.reseller:
        said = "a reseller: prompts pass a third party on their way to the model's maker"
        findings.append(Finding(subject=subject, verdict=Verdict.NOTE, seen=said))
    return findings


def _is_dead(seen: Probe) -> bool:
    """Tell whether a call would only say again what the probe said."""
    return isinstance(seen.failure, UpstreamAuthFailed | UpstreamTimeout | UpstreamUnreachable)


def _failed(subject: str, provider: Provider, seen: Probe, vendor: Vendor | None) -> Finding:
    error, said = seen.failure, str(seen.failure)
    assert error is not None
    lists = vendor is None or vendor.lists_models
    if seen.status in (404, 405, 501) or (seen.status == 500 and provider.tier is Tier.PRIVATE and lists):
        said = f"is reached ({seen.took_ms:.0f} ms) and does not list its models ({seen.status})"
        remedy = "If calls fail, too, look at its base_url: it ends with the version, such as /v1."
        return Finding(subject=subject, verdict=Verdict.NOTE, seen=said, remedy=remedy)
    return Finding(subject=subject, verdict=Verdict.BAD, seen=said, remedy=_remedy(error, provider))


def _remedy(error: TiergateError, provider: Provider) -> str | None:
    match error:
        case UpstreamAuthFailed():
            return None  # the sentence says it
        case UpstreamUnreachable() if provider.tier is Tier.PRIVATE:
            return f"Start the server, or correct base_url of provider {provider.name}."
        case UpstreamUnreachable():
            return (
                f"Look at base_url of provider {provider.name} (host, port, https) and at this machine's way "
                "out: name server, firewall. Proxies of the environment are not used."
            )
        case UpstreamTimeout():
            return "It is there and too slow, or a firewall swallows what is sent to it."
        case _:
            return f"Look at base_url of provider {provider.name}, and at the provider's status page."


async def _calls(loaded: Loaded, environ: Mapping[str, str], providers: Sequence[str]) -> list[Finding]:
    """Ask one question of one token: through the ledger like any other call."""
    findings = []
    async with Gateway(loaded, environ=environ) as gateway:
        for name in providers:
            models = _targets(loaded, name)
            subject = f"{name}, one call"
            if not models:
                said = "no model of it is named in the settings, so none was asked"
                findings.append(Finding(subject=subject, verdict=Verdict.NOTE, seen=said))
                continue
            try:
                question = [{"role": "user", "content": "Say yes."}]
                reply = await gateway.chat(question, model=f"{name}/{models[0]}", max_tokens=1)
            except TiergateError as error:
                findings.append(Finding(subject=subject, verdict=Verdict.BAD, seen=str(error)))
            else:
                cost = "an unknown amount" if reply.cost_usd is None else f"${reply.cost_usd:f}"
                said = f"{models[0]} answered; it cost {cost}"
                findings.append(Finding(subject=subject, verdict=Verdict.GOOD, seen=said))
    return findings

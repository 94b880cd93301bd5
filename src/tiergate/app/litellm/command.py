"""Reads the file, writes ours beside it, and prints what has no counterpart."""

import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tiergate.app.litellm.reading import Found, Imported, read_litellm
from tiergate.config import DEFAULT_FILE, load_text
from tiergate.core import CannotStart
from tiergate.wire import dumps

_BYTES_MAX: Final = 4 << 20
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def import_litellm(source: Path, target: Path | None, *, force: bool, as_json: bool) -> None:
    """Write `source` as settings of ours into `target`, `-` for standard output, and print the notes.

    Raises:
        CannotStart: the file cannot be read, is no LiteLLM configuration, or nothing of it can be called
            here; or the target is there already.
    """
    path = target or Path(DEFAULT_FILE)
    to_stdout = str(path) == "-"
    if not to_stdout and path.exists() and not force:
        raise CannotStart(
            f"{path} is there already. Name another file with --output, or replace it with --force."
        )
    imported = read_litellm(_document(source))
    if not imported.providers:
        reasons = "".join(f"\n  {line}" for line in imported.notes.lines())
        raise CannotStart(f"Nothing in {source} can be called from here.{reasons}")
    text = settings_text(imported, source.name)
    load_text(text, _stand_ins(text), name=str(path))
    if to_stdout:
        print(text, end="")
    else:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CannotStart(f"{path} cannot be written: {error.strerror}.") from error
    _print(imported, None if to_stdout else path, text, as_json=as_json)


def settings_text(imported: Imported, source: str) -> str:
    """Write what was read as a settings file."""
    lines = [f"# Settings of Tiergate, made from {source} of a LiteLLM proxy.", "", "providers:"]
    for provider in imported.providers:
        lines += _provider_lines(provider)
    lines += ["", "models:" if imported.models else "models: {}"]
    for model, targets in imported.models.items():
        lines += [
            f"  {_quoted(model)}:",
            "    targets:",
            *[f"      - {_quoted(target)}" for target in targets],
        ]
    if imported.prices:
        lines += ["", "prices:"]
    for target, rates in imported.prices.items():
        said = ", ".join(f"{bucket}: {usd}" for bucket, usd in rates.items())
        lines += [
            f"  - target: {_quoted(target)}",
            f"    usd_per_1m: {{{said}}}",
            f"    source: {_quoted(source)}",
        ]
    if imported.resilience:
        lines += ["", "resilience:", *[f"  {name}: {value}" for name, value in imported.resilience.items()]]
    if imported.master_key is not None:
        lines += ["", "auth: keys", "keys:", f'  - {{name: master, secret: "${{{imported.master_key}}}"}}']
    return "\n".join(lines) + "\n"


def _provider_lines(provider: Found) -> list[str]:
    lines = [f"  {provider.name}:"]
    if len(provider.urls) == 1:
        lines.append(f"    base_url: {_quoted(provider.urls[0])}")
    else:
        lines += ["    replicas:", *[f"      - {_quoted(url)}" for url in provider.urls]]
    if provider.variable is not None:
        lines.append(f'    api_keys: ["${{{provider.variable}}}"]')
    if provider.is_private:
        lines.append("    tier: private")
    if provider.engine is not None:
        lines.append(f"    engine: {provider.engine}")
    if provider.vendor is not None and provider.vendor.reseller:
        lines.append("    reseller: true")
    if provider.concurrency:
        lines.append(f"    limits: {{concurrency: {provider.concurrency}}}")
    return lines


def _document(source: Path) -> dict[str, Any]:
    try:
        text = source.read_bytes()[: _BYTES_MAX + 1]
    except OSError as error:
        raise CannotStart(f"{source} cannot be read: {error.strerror}.") from error
    if len(text) > _BYTES_MAX:
        raise CannotStart(f"{source} has more than 4 MiB; that is no LiteLLM configuration.")
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise CannotStart(f"{source}{where} is no YAML: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CannotStart(f"{source} is no YAML.") from error
    if not isinstance(document, dict) or not isinstance(document.get("model_list"), list):
        raise CannotStart(
            f"{source} has no `model_list`; give a LiteLLM proxy's config.yaml. Models that "
            "stand in LiteLLM's database are not in it."
        )
    return document


def _print(imported: Imported, path: Path | None, text: str, *, as_json: bool) -> None:
    notes, variables = imported.notes.lines(), sorted(set(_VARIABLE.findall(text)))
    out = sys.stderr if path is None else sys.stdout
    if as_json:
        said = {"file": None if path is None else str(path), "variables": variables, "notes": notes}
        print(dumps(said).decode(), file=out)
        return
    counts = ", ".join(
        f"{what}: {len(things)}"
        for what, things in (
            ("providers", imported.providers),
            ("models", imported.models),
            ("prices", imported.prices),
        )
    )
    print(f"{path or 'The settings'}: {counts}.", file=out)
    if variables:
        print(f"It needs in the environment or in .env: {', '.join(variables)}", file=out)
    if notes:
        print("Without a counterpart, or with another meaning:", file=out)
    for line in notes:
        print(f"  {line}", file=out)
    if path is not None:
        print(f"Next: tiergate doctor --config {path}", file=out)


def _stand_ins(text: str) -> dict[str, str]:
    """Give each variable a value that a key or an address may have, to try the settings without real ones."""
    return {name: f"https://{n}.stand-in.example" for n, name in enumerate(_VARIABLE.findall(text))}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

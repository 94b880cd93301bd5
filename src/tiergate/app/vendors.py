"""`tiergate providers`: whom the gateway knows without being told, as a list and as a reference page."""

from typing import Any

from tiergate.app.table import plain_table, print_table
from tiergate.catalog import VENDORS, Vendor, price_count
from tiergate.core import Tier
from tiergate.wire import dumps

_HEAD = """# Providers

Whom Tiergate knows without being told. This file is made from the code: `tiergate providers --markdown >
docs/reference/providers.md`. Any other OpenAI-compatible API works as well; give its address and the prices
yourself. [How prices work](../prices.md) says how to add one for everybody.

A vendor is recognised by the host in `base_url`, whatever name the settings give to it. A proxy in front of
one is nobody we know, since it may have other prices. `tiergate serve` without a settings file uses each
vendor whose key variable is set, and each server that answers at its address on this machine.

What a model can do and how long its texts may be (`capabilities`, `context_length` and `max_output_tokens` in
`GET /v1/models`) is the data of models.dev; what it leaves out is unknown, and stands there as `null`.
"""


def list_vendors(form: str) -> None:
    """Print the vendors; `form` is `table`, `json` or `markdown`."""
    if form == "json":
        print(dumps([_vendor_object(vendor) for vendor in VENDORS]).decode())
    elif form == "markdown":
        print(_markdown(), end="")
    else:
        table = plain_table("name", "base_url", "key", "models with a price")
        for vendor in VENDORS:
            table.add_row(vendor.name, vendor.base_url, vendor.key_variable or "none", _prices(vendor))
        print_table(table)


def _vendor_object(vendor: Vendor) -> dict[str, Any]:
    return {
        "name": vendor.name,
        "title": vendor.title,
        "base_url": vendor.base_url,
        "tier": vendor.tier.value,
        "key_variable": vendor.key_variable,
        "reseller": vendor.reseller,
        "priced_models": price_count(vendor),
        "reports_cost": vendor.reports_cost,
        "peculiar": _peculiar(vendor),
        "unsupported_fields": vendor.unsupported,
        "pages": vendor.pages,
        "checked": vendor.checked.isoformat(),
    }


def _markdown() -> str:
    hosted = [vendor for vendor in VENDORS if vendor.tier is Tier.HOSTED]
    servers = [vendor for vendor in VENDORS if vendor.tier is Tier.PRIVATE]
    lines = [
        _HEAD,
        "## Hosted",
        "",
        "| name | | `base_url` | key variable | models with a price | peculiar | read at |",
        "|---|---|---|---|---|---|---|",
        *[
            f"| `{one.name}` | {one.title} | `{one.base_url}` | `{one.key_variable}` | {_prices(one)} | "
            f"{_sentences(one)} | {_links(one)} |"
            for one in hosted
        ],
        "",
        "## Servers of your own",
        "",
        "| `engine` | | usual address | peculiar | read at |",
        "|---|---|---|---|---|",
        *[
            f"| `{one.engine}` | {one.title} | `{one.base_url}` | {_sentences(one)} | {_links(one)} |"
            for one in servers
        ],
        "",
        f"All rows were looked at on {max(one.checked for one in VENDORS).isoformat()}.",
        "",
    ]
    return "\n".join(lines)


def _prices(vendor: Vendor) -> str:
    if vendor.tier is Tier.PRIVATE:
        return "invoices nothing"
    return "none: give them in the settings" if vendor.prices is None else f"{price_count(vendor):,}"


def _peculiar(vendor: Vendor) -> list[str]:
    said = {
        "prompts pass a third party": vendor.reseller,
        "its replies say what they cost": vendor.reports_cost,
        "reports usage in streams without being asked": not vendor.takes_stream_options,
        "streams end without `[DONE]`": not vendor.done_marker,
        "lists no models that can be called": not vendor.lists_models,
        "`RESOURCE` is a name of yours; `AZURE_OPENAI_ENDPOINT` gives it": "RESOURCE" in vendor.base_url,
    }
    fields = ", ".join(f"`{field}`" for field in vendor.unsupported)
    return [sentence for sentence, holds in said.items() if holds] + [f"does not take {fields}"] * bool(
        fields
    )


def _sentences(vendor: Vendor) -> str:
    return "; ".join(_peculiar(vendor))


def _links(vendor: Vendor) -> str:
    return ", ".join(f"[{number}]({page})" for number, page in enumerate(vendor.pages, start=1))

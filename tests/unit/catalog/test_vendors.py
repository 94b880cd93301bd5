"""Vendors are recognised by the host of their address, and by nothing else."""

import pytest

from tiergate.catalog import VENDORS, vendor_at, vendor_named
from tiergate.core import Tier


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_a_row_is_whole(vendor: object) -> None:
    """What a newcomer needs of each: where it is, its key or its engine, the page that says so."""
    from tiergate.catalog import Vendor

    assert isinstance(vendor, Vendor)
    assert vendor_named(vendor.name) is vendor
    assert vendor.pages and all(page.startswith("https://") for page in vendor.pages)
    assert not vendor.base_url.endswith("/")
    if vendor.tier is Tier.HOSTED:
        assert vendor.base_url.startswith("https://") and vendor.key_variable
        assert vendor_at([vendor.base_url.replace("RESOURCE", "ours")]) is vendor
    else:
        assert vendor.base_url.startswith("http://127.0.0.1:") and vendor.engine
        assert vendor.key_variable is None and vendor_at([vendor.base_url]) is None


def test_names_hosts_and_variables_are_unique() -> None:
    """So that each leads to one row."""
    for values in (
        [vendor.name for vendor in VENDORS],
        [vendor.host for vendor in VENDORS if vendor.host],
        [vendor.key_variable for vendor in VENDORS if vendor.key_variable],
    ):
        assert len(values) == len(set(values))


@pytest.mark.parametrize(
    ("urls", "name"),
    [
        (["https://api.openai.com/v1"], "openai"),
        (["https://API.OpenAI.com:443/v1"], "openai"),
        (["https://ours.openai.azure.com/openai/v1"], "azure"),
        (["https://proxy.example/openai/v1"], None),
        (["https://api.openai.com.evil.example/v1"], None),
        (["https://evil-openai.azure.com.example/v1"], None),
        (["http://10.0.0.7:8000/v1"], None),
        (["https://api.openai.com/v1", "https://api.openai.com/v2"], "openai"),
        (["https://api.openai.com/v1", "https://proxy.example/v1"], None),
        ([], None),
    ],
)
def test_whose_api_is_at_an_address(urls: list[str], name: str | None) -> None:
    """A proxy may have other prices, so it is nobody we know."""
    vendor = vendor_at(urls)
    assert (None if vendor is None else vendor.name) == name

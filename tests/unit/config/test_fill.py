"""What the rooms get from the settings."""

import pytest

from tiergate.config import fill, load_text


@pytest.mark.parametrize(
    ("limits", "connections"),
    [("{}", 1024), ("{concurrency: 8}", 1024), ("{concurrency: 1024}", 1024), ("{concurrency: 5000}", 5000)],
)
def test_every_permit_has_a_connection(limits: str, connections: int) -> None:
    """The pool never holds back calls that `limits.concurrency` lets through."""
    settings = load_text(f"providers: {{a: {{base_url: http://a, limits: {limits}}}}}", {}).settings
    assert fill.providers(settings)["a"].max_connections == connections

"""What this version cannot honour is refused or told, never silently ignored."""

import pytest

from tiergate.config import Settings, load_text, walk
from tiergate.config.pending import PENDING, Pending, find
from tiergate.core import SettingsError

BASE = "providers: {rack: {base_url: http://10.0.0.7/v1}}\n"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("budgets: [{scope: all, usd: 500, per: month}]", "tiergate.yaml:2:1: budgets: "),
        ("store: postgresql://u:p@h/db", "tiergate.yaml:2:1: store: "),
        ("redis: redis://h:6379/0", "tiergate.yaml:2:1: redis: "),
        ("models: {a: {targets: [rack/x], policy: hybrid}}", "tiergate.yaml:2:33: models.a.policy: "),
        ("cache: {exact: {when: always}}", "tiergate.yaml:2:17: cache.exact.when: "),
        ("log: {bodies: errors}", "tiergate.yaml:2:7: log.bodies: "),
        ("log: {bodies: all}", "tiergate.yaml:2:7: log.bodies: "),
    ],
)
def test_refused(line: str, place: str) -> None:
    """A setting whose neglect would surprise stops the start and says what to remove."""
    with pytest.raises(SettingsError) as caught:
        load_text(BASE + line, {})
    (told,) = caught.value.problems
    assert told.startswith(place)
    assert "remove" in told


@pytest.mark.parametrize("line", ["api: anthropic", "proxy: http://user:pass@proxy:3128"])
def test_refused_of_a_provider(line: str) -> None:
    """A provider that cannot be reached as it asks stops the start."""
    with pytest.raises(
        SettingsError, match=r"tiergate\.yaml:4:5: providers\.rack\.(api|proxy): .* remove"
    ) as caught:
        load_text(f"providers:\n  rack:\n    base_url: http://a\n    {line}\n", {})
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("admin: {listen: 127.0.0.1:0}", "tiergate.yaml:2:1: admin: "),
        ("cache: {exact: {ttl: 2h}}", "tiergate.yaml:2:1: cache: "),
        ("alerts: {at: [0.9]}", "tiergate.yaml:2:1: alerts: "),
        ("retention: {calls: 30d}", "tiergate.yaml:2:1: retention: "),
        ("resilience: {heartbeat_s: 5}", "tiergate.yaml:2:14: resilience.heartbeat_s: "),
    ],
)
def test_told(line: str, place: str) -> None:
    """A setting whose neglect is harmless is told at the start."""
    (notice,) = load_text(BASE + line, {}).notices
    assert notice.startswith(place)


def test_told_of_a_provider() -> None:
    """Rates are told, concurrency works and is not."""
    text = "providers: {rack: {base_url: http://a, limits: {rpm: 10, tpm: 20, concurrency: 3}}}"
    loaded = load_text(text, {})
    assert [notice.split(": ")[1] for notice in loaded.notices] == [
        "providers.rack.limits.rpm",
        "providers.rack.limits.tpm",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "budgets: []",
        "store: null",
        "store: ${S:-}",
        "redis: ~",
        "log: {bodies: never}",
        "cache: {}",
        "resilience: {}",
        "models: {a: {targets: [rack/x], policy: in-order}}",
    ],
)
def test_quiet(line: str) -> None:
    """What asks for nothing, or for what is done anyway, is not mentioned."""
    assert load_text(BASE + line, {}).notices == ()


@pytest.mark.parametrize("row", PENDING, ids=lambda row: ".".join(row.path))
def test_rows_name_settings(row: Pending) -> None:
    """Every row speaks about a setting that exists, so that none outlives its setting."""
    assert walk.at(row.path) is not None


def test_settings_of_a_program() -> None:
    """The same table answers for settings that no file gave."""
    made = Settings.model_validate(
        {
            "providers": {"a": {"base_url": "http://a"}},
            "budgets": [{"scope": "all", "usd": 1}],
            "alerts": {"at": ["0.5"]},
        }
    )
    found = find(made.model_dump(mode="json", exclude_unset=True))
    assert [(path, row.stops) for path, row in found] == [(("budgets",), True), (("alerts",), False)]

"""What this version cannot honour is refused or told, never silently ignored."""

import pytest

from tiergate.config import Settings, load_text, walk
from tiergate.config.pending import PENDING, Pending, find
from tiergate.core import SettingsError

BASE = "providers: {rack: {base_url: http://10.0.0.7/v1}}\n"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("models: {a: {targets: [rack/x], policy: hybrid}}", "tiergate.yaml:2:33: models.a.policy: "),
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


def test_told_of_a_cost() -> None:
    """What a private server costs is recorded nowhere, and that is said."""
    text = "providers: {rack: {base_url: http://a, tier: private, cost: {gpu_hour_usd: 2}}}"
    (notice,) = load_text(text, {}).notices
    assert notice.startswith("tiergate.yaml:1:55: providers.rack.cost: ")


def test_told_of_further_keys() -> None:
    """The first of several API keys is used: the second is where the notice points, and no key is shown."""
    text = "providers:\n  a:\n    base_url: http://a\n    api_keys:\n      - {}\n      - {}\n      - {}\n"
    keys = ("first-0123456789", "second-0123456789", "third-0123456789")
    (notice,) = load_text(text.format(*keys), {}).notices
    assert notice == "tiergate.yaml:6:9: providers.a.api_keys[1]: only the first key is used yet"


@pytest.mark.parametrize(
    "more", ["api_keys: [only-one-0123456789]", "engine: vllm, tier: private", "reseller: true"]
)
def test_quiet_about_a_provider(more: str) -> None:
    """One key is used; what only describes a provider asks for nothing."""
    assert load_text(f"providers: {{a: {{base_url: http://a, {more}}}}}", {}).notices == ()


@pytest.mark.parametrize(
    "line",
    [
        "budgets: [{scope: all, usd: 500, per: month}]",
        "admin: {listen: 127.0.0.1:0}",
        "alerts: {at: [0.9], webhook: https://hooks.example/x}",
        "store: null",
        "store: ${S:-}",
        "redis: ~",
        "redis: redis://h:6379/0\nsecret: 0123456789abcdef0123456789abcdef",
        "log: {bodies: never}",
        "cache: {}",
        "secret: ${S:-}",
        "secret: 0123456789abcdef0123456789abcdef",
        "classes: {}",
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
            "log": {"bodies": "all"},
            "retention": {"jobs": "2d"},
        }
    )
    found = find(made.model_dump(mode="json", exclude_unset=True))
    told = [(path, row.stops) for path, row in found]
    assert told == [(("log", "bodies"), True)]

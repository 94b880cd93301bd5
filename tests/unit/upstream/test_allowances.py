"""Headers about limits: what providers send is read, and what cannot be meant is as if it were not there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.core import Allowance, Allowances
from tiergate.upstream import read_allowances


def read(**headers: str) -> Allowances | None:
    return read_allowances({name.replace("_", "-").encode(): said.encode() for name, said in headers.items()})


def openai(limit: str = "60", remaining: str = "59", reset: str = "1s") -> Allowance | None:
    said = read(
        x_ratelimit_limit_requests=limit,
        x_ratelimit_remaining_requests=remaining,
        x_ratelimit_reset_requests=reset,
    )
    return None if said is None else said.requests


def test_openais_names_are_read() -> None:
    """As its guide to rate limits shows them, 2026-11."""
    said = read(
        x_ratelimit_limit_requests="60",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_requests="59",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert said == Allowances(requests=Allowance(60, 59, 1), tokens=Allowance(150_000, 149_984, 360))


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("1d", 86_400),
        ("1s500ms", 1.5),
        ("0s", 0),
        ("12", 12),
        ("0.25", 0.25),
        (" 7.66s ", 7.66),
    ],
)
def test_resets_are_read_as_spans(reset: str, seconds: float) -> None:
    """Also plain seconds."""
    found = openai(reset=reset)
    assert found is not None and found.reset_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        "-1",
        "-1s",
        "nan",
        "inf",
        "1e3",
        "1" + "0" * 30,
        "ten",
        "1s2h",
        "s",
        "5, 6",
        "٣",
        "25h",
        "1.s",
    ],
)
def test_nonsense_is_ignored_field_by_field(nonsense: str) -> None:
    """The others still count."""
    assert openai(reset=nonsense) == Allowance(60, 59, None)
    if nonsense != "25h":
        assert openai(limit=nonsense) == Allowance(None, 59, 1)
        assert openai(remaining=nonsense) == Allowance(60, None, 1)
    assert openai(limit=nonsense, remaining=nonsense) is None


def test_a_limit_of_nothing_is_none() -> None:
    """Servers without limits say 0."""
    assert openai(limit="0", remaining="0") == Allowance(None, 0, 1)


def test_anthropics_names_are_read() -> None:
    """Its resets are moments, which are measured by the same answer's own clock."""
    said = read(
        date="Fri, 27 Nov 2026 10:00:00 GMT",
        anthropic_ratelimit_requests_limit="50",
        anthropic_ratelimit_requests_remaining="49",
        anthropic_ratelimit_requests_reset="2026-11-27T10:00:01Z",
        anthropic_ratelimit_input_tokens_limit="30000",
        anthropic_ratelimit_input_tokens_remaining="0",
        anthropic_ratelimit_input_tokens_reset="2026-11-27T11:01:00+01:00",
        anthropic_ratelimit_output_tokens_limit="8000",
        anthropic_ratelimit_output_tokens_remaining="8000",
        anthropic_ratelimit_output_tokens_reset="2026-11-27T09:59:59Z",
    )
    assert said == Allowances(
        requests=Allowance(50, 49, 1),
        input_tokens=Allowance(30_000, 0, 60),
        output_tokens=Allowance(8_000, 8_000, None),
    )


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 27 Nov 2026 10:00:00"])
@pytest.mark.parametrize(
    "reset", ["2026-11-27T10:00:30Z", "2026-11-27T10:00:30", "2026-13-01T00:00:00Z", "é"]
)
def test_a_moment_without_its_clock_is_none(date: str, reset: str) -> None:
    """And one without an offset; a Date without a zone is one of Greenwich."""
    said = read(
        date=date, anthropic_ratelimit_requests_remaining="1", anthropic_ratelimit_requests_reset=reset
    )
    is_known = date.startswith("Fri") and reset.endswith("30Z")
    assert said == Allowances(requests=Allowance(None, 1, 30 if is_known else None))


@pytest.mark.parametrize("prefix", ["x_ratelimit_", "ratelimit_"])
def test_plain_names_count_requests_where_all_of_them_fit(prefix: str) -> None:
    """Nobody says what they count or when: in doubt they say nothing."""

    def plain(limit: str | None = "100", remaining: str = "0", reset: str = "30") -> Allowances | None:
        fields = {"limit": limit, "remaining": remaining, "reset": reset}
        return read(**{prefix + name: said for name, said in fields.items() if said is not None})

    assert plain() == Allowances(requests=Allowance(100, 0, 30, comes_at_once=True))
    assert plain(limit=None) is plain(limit="0") is plain(remaining="101") is None
    assert plain(reset="1795773600") is plain(reset="10s") is plain(limit="100, 100;w=60") is None


def test_an_answer_without_such_headers_says_nothing() -> None:
    """As most do."""
    assert read(content_type="application/json", x_request_id="r") is None


@given(st.dictionaries(st.sampled_from(["limit", "remaining", "reset"]), st.binary(max_size=40)))
def test_whatever_stands_there_is_read_or_ignored(fields: dict[str, bytes]) -> None:
    """No header of a provider fails an answer."""
    for name in (
        "x-ratelimit-{}-requests",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}",
        "ratelimit-{}",
    ):
        headers = {name.format(field).encode(): said for field, said in fields.items()}
        said = read_allowances({b"date": b"Fri, 27 Nov 2026 10:00:00 GMT", **headers})
        for rate in (said.requests,) if said is not None and said.requests is not None else ():
            assert rate.limit is None or 0 < rate.limit < 1e12
            assert rate.remaining is None or 0 <= rate.remaining < 1e12
            assert rate.reset_s is None or 0 <= rate.reset_s <= 86_400

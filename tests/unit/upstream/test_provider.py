"""Providers, their servers and what a request to them looks like, without any network."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.core import Tier
from tiergate.upstream import Credential, Endpoint, Origin, Provider
from tiergate.upstream.replicas import REST_S, Replicas

SECRET = "sk-0123456789abcdef"


def provider(*base_urls: str, secret: str | None = SECRET) -> Provider:
    return Provider(
        name="acme",
        tier=Tier.HOSTED,
        base_urls=base_urls,
        credentials=(Credential(id="first", secret=secret),) if secret is not None else (),
        ca_file="/etc/issuers.pem",
        max_connections=5,
    )


@pytest.mark.parametrize(
    ("base_url", "scheme", "host", "port", "path", "host_header"),
    [
        ("https://api.acme.example/v1", "https", "api.acme.example", 443, "/v1", "api.acme.example"),
        ("https://api.acme.example/v1/", "https", "api.acme.example", 443, "/v1", "api.acme.example"),
        ("http://10.0.0.7:8000/v1", "http", "10.0.0.7", 8000, "/v1", "10.0.0.7:8000"),
        ("http://rack", "http", "rack", 80, "", "rack"),
        ("https://rack:80", "https", "rack", 80, "", "rack:80"),
        ("http://[::1]:8000/v1", "http", "::1", 8000, "/v1", "[::1]:8000"),
        ("https://bücher.example/v1", "https", "xn--bcher-kva.example", 443, "/v1", "xn--bcher-kva.example"),
    ],
)
def test_a_base_url_is_an_origin_and_a_path(
    base_url: str, scheme: str, host: str, port: int, path: str, host_header: str
) -> None:
    """What is connected to, what is verified, what is asked for."""
    origin, got_path = provider(base_url).place(base_url)
    assert (origin.scheme, origin.host, origin.port, got_path) == (scheme, host, port, path)
    assert origin.host_header == host_header
    assert (origin.ca_file, origin.max_connections) == ("/etc/issuers.pem", 5)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.acme.example/v1",
        "ftp://acme.example/v1",
        "file:///etc/passwd",
        "https:///v1",
        "https://user:sk-secret@acme.example/v1",
        "https://sk-secret@acme.example/v1",
        "https://acme.example/v1?key=sk-secret",
        "https://acme.example/v1#x",
        "https://acme.example:0/v1",
        "https://acme.example:99999/v1",
        "https://acme.example:x/v1",
        "https://ac me.example/v1",
        "https://acme.example\r\nx-evil: 1/v1",
        "http://[::1",
    ],
)
def test_what_is_no_base_url_is_refused_without_showing_a_secret(base_url: str) -> None:
    """S12, I12: at the start, with a sentence; a key in the URL is not repeated."""
    with pytest.raises(ValueError, match="\\.") as caught:
        Replicas(provider(base_url), user_agent="tiergate/0")
    assert "sk-secret" not in str(caught.value)


def test_a_provider_needs_a_server_and_a_known_api() -> None:
    """Refused at once, not at the first call."""
    with pytest.raises(ValueError, match="no base_url"):
        provider()
    with pytest.raises(ValueError, match="empty key"):
        provider("http://rack", secret="")
    with pytest.raises(ValueError, match="not known"):
        Provider(name="acme", tier=Tier.HOSTED, base_urls=("http://rack",), api="telepathy")


def test_no_repr_shows_a_secret() -> None:
    """S33, I12: a provider, its credential and the endpoints made of them."""
    acme = provider("https://api.acme.example/v1", "https://b.acme.example/v1")
    replicas = Replicas(acme, user_agent="tiergate/0")
    shown = repr((acme, acme.credential, [r.endpoint(streamed=True) for r in replicas.all]))
    assert SECRET not in shown and "Bearer" not in shown


# The head of a request


def head(**more: object) -> bytes:
    origin = Origin(scheme="http", host="rack", port=8000)
    return Endpoint(label="rack", origin=origin, path="/v1/chat/completions", **more).head  # type: ignore[arg-type]  # the test gives wrong values on purpose


def test_the_head_is_request_line_host_and_headers() -> None:
    """As it goes out; length and empty line are added with each body."""
    assert head(headers=(("accept", "a/b"), ("x-a", "1 2"))) == (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: rack:8000\r\naccept: a/b\r\nx-a: 1 2\r\n"
    )


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "", " a", "a ", "ü", "a\x7f"])
def test_a_header_value_cannot_begin_another_header(value: str) -> None:
    """A key with a line break in it is refused, and not shown."""
    with pytest.raises(ValueError, match="authorization") as caught:
        head(headers=(("authorization", value),))
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "x a", "x:", "x\r\n", "ü"])
def test_a_header_name_is_a_token(name: str) -> None:
    """RFC 9110, 5.1."""
    with pytest.raises(ValueError, match="header"):
        head(headers=((name, "1"),))


@pytest.mark.parametrize("path", ["", "v1", "/a b", "/a\r\nx: 1", "/ü", "http://evil/"])
def test_a_path_is_one_word_from_the_root(path: str) -> None:
    """Nothing that could become a second line or another origin."""
    with pytest.raises(ValueError, match="path"):
        Endpoint(label="rack", origin=Origin(scheme="http", host="rack", port=80), path=path)


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_every_head_that_can_be_made_has_the_headers_it_was_given(name: str, value: str) -> None:
    """Whatever is given: refused, or on its own single line."""
    try:
        got = head(headers=((name, value),))
    except ValueError:
        return
    assert got.split(b"\r\n") == [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: rack:8000",
        f"{name}: {value}".encode("ascii"),
        b"",
    ]


# Which server


def names(replicas: Replicas, now: float) -> list[str]:
    return [replica.name for replica in replicas.in_order(now)]


def three() -> Replicas:
    return Replicas(provider("http://a", "http://b", "http://c"), user_agent="tiergate/0")


def test_equal_servers_take_turns() -> None:
    """Each of three is first once in three questions."""
    replicas = three()
    assert {names(replicas, 0.0)[0] for _ in range(3)} == {"a:80", "b:80", "c:80"}


def test_the_server_with_the_fewest_in_flight_is_first() -> None:
    """Whatever the turn."""
    replicas = three()
    for replica, in_flight in zip(replicas.all, (2, 0, 1), strict=True):
        replica.in_flight = in_flight
    for _ in range(3):
        assert names(replicas, 0.0) == ["b:80", "c:80", "a:80"]


def test_a_server_that_could_not_be_connected_to_rests() -> None:
    """It comes last, though it has the fewest in flight, and only for a while."""
    replicas = three()
    first = replicas.all[0]
    first.rests_until = 100.0 + REST_S
    for other in replicas.all[1:]:
        other.in_flight = 5
    assert names(replicas, 100.0)[-1] == "a:80"
    assert names(replicas, 100.0 + REST_S)[0] == "a:80"


def test_a_label_names_the_server_without_its_address() -> None:
    """Labels reach callers; where our servers stand is nobody's business."""
    labels = [replica.endpoint(streamed=False).label for replica in three().all]
    assert labels == ["acme (server 1 of 3)", "acme (server 2 of 3)", "acme (server 3 of 3)"]
    (only,) = Replicas(provider("http://a"), user_agent="tiergate/0").all
    assert only.endpoint(streamed=True).label == "acme"

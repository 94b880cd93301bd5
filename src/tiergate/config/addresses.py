"""Addresses: where a listener binds, where a provider is, which names and origins may call."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tiergate.config.scalar import needs, refuse, text_of


class Address(str):
    """Where a listener binds: the text `host:port` that knows its parts; IPv6 as `[::1]:4400`."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """The literal address, or `localhost`, without brackets."""
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port; 0 lets the kernel choose."""
        return int(self.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or is_loopback(ip_address(self.host))

    def collides(self, other: "Address") -> bool:
        """Tell whether both cannot be bound at once."""
        if self.port == 0 or self.port != other.port:
            return False
        wide = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to
        return self.host == other.host or bool(wide & {self.host, other.host})


def is_loopback(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address stays on this machine, also when IPv4 is written as IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_INSIDE: Final = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".cluster.local", ".svc")


def read_address(value: object) -> Address:
    """Read `host:port`; the host is a literal address or `localhost`, so that nothing is looked up."""
    what = "an address such as 127.0.0.1:4400, [::1]:4400 or localhost:4400"
    text = text_of(value, what)
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65_535:
        needs(what)
    if host == "localhost":
        return Address(f"localhost:{int(port)}")
    bracketed = host.startswith("[") and host.endswith("]")
    literal = _literal(host[1:-1] if bracketed else host)
    if literal is None or bracketed != isinstance(literal, IPv6Address):
        needs(what)
    return Address(f"[{literal}]:{int(port)}" if bracketed else f"{literal}:{int(port)}")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    if "%" in host:  # A zone names an interface of one machine; no setting needs it.
        return None
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_host(host: str) -> bool:
    """Tell whether a text is an address literal or a host name that nobody can read as a number."""
    if _literal(host) is not None:
        return True
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    # `http://2130706433` and `http://0x7f.1` reach 127.0.0.1 through many resolvers.
    return not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1], re.ASCII)


def is_inside(url: str) -> bool:
    """Tell whether a URL points at this machine or a private network, as far as its text says."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    literal = _literal(host)
    if literal is not None:
        return is_loopback(literal) or not literal.is_global
    return "." not in host or host.endswith(_INSIDE)


def _split(text: str) -> SplitResult:
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text or len(text) > 2000:
        refuse("needs plain ASCII without spaces and at most 2000 characters")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        refuse("is no URL: look at the host and the port")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        refuse("needs to begin with https:// or http:// and a host")
    if parts.username is not None or parts.password is not None:
        refuse("cannot hold a user name or a password: give the key under api_keys")
    if "?" in text or "#" in text:
        refuse("cannot hold a query (?) or a fragment (#)")
    if parts.port == 0 or not _is_host(parts.hostname or ""):
        refuse("has a host or a port that cannot be")
    return parts


def _origin_of(parts: SplitResult) -> str:
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port is not None else "")


def read_base_url(value: object) -> str:
    """Read the URL that a provider's paths hang on; gives it without a slash at its end."""
    parts = _split(text_of(value, "a base URL such as https://api.example.com/v1"))
    return _origin_of(parts) + parts.path.rstrip("/")


def read_origin(value: object) -> str:
    """Read an exact origin, as browsers send it."""
    text = text_of(value, "an origin such as https://app.example.com")
    if text in ("*", "null"):
        refuse("needs an exact origin such as https://app.example.com; * and null are never allowed")
    parts = _split(text)
    if parts.path not in ("", "/"):
        refuse("needs an origin only: scheme, host and port, without a path")
    return _origin_of(parts)


def read_host_name(value: object) -> str:
    """Read the name of a host, in lower case."""
    what = "a host name or an address, without scheme and port"
    text = text_of(value, what).lower()
    return text if _is_host(text) else needs(what)

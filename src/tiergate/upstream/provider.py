"""Providers as the settings name them: where they are, with which credential, within which limits."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tiergate.core import Tier
from tiergate.upstream.transport import Origin

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key of ours at a provider. The secret is never shown; `id` names it in logs and metrics."""

    id: str
    secret: str = field(repr=False)

    @property
    def shown(self) -> str:
        """Its last four characters, where that leaves most of it hidden."""
        return f"…{self.secret[-4:]}" if len(self.secret) >= 16 else "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Somebody's API, or servers of ours that hold the same models (replicas).

    A base URL ends where the dialect's paths begin: `https://api.example.com/v1`. `ca_file` holds the
    issuers to trust in place of the system's. `takes_stream_options`: it is asked for the usage of streams by
    `stream_options`; one that refuses the option reports it by itself. Connections are counted per replica.
    The caps bound memory: a larger reply or event is an error.

    Raises:
        ValueError: a base URL that cannot be one, or none; the message is a sentence without secrets.
    """

    name: str
    tier: Tier
    base_urls: tuple[str, ...]
    api: str = "openai"
    credentials: tuple[Credential, ...] = ()
    ca_file: str | None = None
    takes_stream_options: bool = True
    max_connections: int = 1024
    body_bytes_max: int = 32 * _MIB
    event_bytes_max: int = 1 * _MIB

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ValueError(f"Provider {self.name} has no base_url.")
        if self.api != "openai":
            raise ValueError(f"Provider {self.name}: the api {self.api!r} is not known here; use openai.")
        if not all(credential.secret for credential in self.credentials):
            raise ValueError(f"Provider {self.name} has an empty key; leave it out where none is needed.")
        for base_url in self.base_urls:
            self.place(base_url)

    @property
    def credential(self) -> Credential | None:
        """The credential in use: the first."""
        return self.credentials[0] if self.credentials else None

    def place(self, base_url: str) -> tuple[Origin, str]:
        """Split a base URL into its origin and the path that all requests begin with.

        Raises:
            ValueError: it is not one.
        """
        try:
            parts = urlsplit(base_url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode("ascii")
        except ValueError as error:
            raise ValueError(f"Provider {self.name}: a base_url is not a URL.") from error
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"Provider {self.name}: put the key into api_keys, not into base_url.")
        if parts.query or parts.fragment:
            raise ValueError(f"Provider {self.name}: a base_url ends with its path; remove ? and #.")
        if parts.scheme not in ("http", "https") or not host:
            # It is not shown: keys end up in the wrong field.
            raise ValueError(f"Provider {self.name}: a base_url begins with http:// or https:// and a host.")
        secure = parts.scheme == "https"
        origin = Origin(
            scheme="https" if secure else "http",
            host=host,
            port=port if port is not None else (443 if secure else 80),
            ca_file=self.ca_file,
            max_connections=self.max_connections,
        )
        return origin, parts.path.rstrip("/")

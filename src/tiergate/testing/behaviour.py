"""How the mock answers one request: what it says, how fast, and what goes wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

# No bounds on numbers that stand beside a tuple: msgspec 0.22 crashes on Count | tuple[Count, Count].
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0)]
Encoding = Literal["gzip", "deflate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that the answer calls."""

    name: str
    arguments: Any = field(default_factory=dict)
    """Anything that JSON can say; text is sent as it is, valid JSON or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One way to answer. Without any key: a complete answer of 16 words, at once.

    "Events" are the `data:` events of a stream, the one with the role counted. What breaks a stream after N
    of them strikes before the finish reason at the latest, so it always strikes; in a reply that is not
    streamed it strikes in the middle of the body.
    """

    # What it says.
    reply: str | None = None
    """Exactly this text."""
    echo: bool = False
    """The text of the last user message."""
    words: int | tuple[int, int] = 16
    """So many generated words, or between two numbers; the same question gets the same words."""
    reasoning: str | None = None
    """Text sent as `reasoning_content` before the answer."""
    tool_call: ToolCall | None = None
    """A call of a tool instead of text."""
    json_mode: bool = False
    """A JSON object as text, also when the request did not ask for JSON."""
    logprobs: bool = False
    """Log probabilities, also when the request did not ask for them."""
    finish_reason: str | None = None
    """This instead of stop, length or tool_calls."""
    usage: Mapping[str, Any] | None = None
    """Laid over the usage object, true or not."""

    # How fast.
    wait_ms: Amount = 0.0
    """No byte leaves before, whatever the answer is."""
    ttft_ms: Amount = 0.0
    """Time to the first token of an answer; errors do not wait for it."""
    ttft_spread: Amount = 0.0
    """Sigma of a lognormal factor on it, drawn for each request."""
    tokens_per_s: Amount = 0.0
    """Rate after the first token, for each choice; 0: all at once."""
    rate_spread: Amount = 0.0
    """Sigma of a lognormal factor on the rate, drawn for each request."""
    early_headers: bool = False
    """Headers leave at once and not with the first token."""
    slow_headers_ms: Amount = 0.0
    """Time between the status line and the rest of the headers."""
    trickle_ms: Amount = 0.0
    """Time between any two bytes of the body, each in a chunk of its own."""

    # Another answer than the one asked for.
    status: Annotated[int, Meta(ge=200, le=599)] = 200
    """An error with this status, unless it is 2xx."""
    error: str | Mapping[str, Any] | None = None
    """The error's message, or keys laid over the error object."""
    headers: Mapping[str, str | int | float | Sequence[str | int | float]] = field(default_factory=dict)
    """More response headers; a list sends the name several times; they replace the mock's own."""
    redirect: str | None = None
    """A redirect to this URL, 307 unless the status says otherwise."""
    html: bool = False
    """A page of HTML."""
    empty: bool = False
    """A body of no bytes."""
    body: str | None = None
    """Exactly this body."""
    refuse: bool = False
    """The connection is reset once the request was read; as the default of a script, the port is closed."""
    hang: bool = False
    """The request is read and never answered."""
    raw: str | None = None
    """Exactly these bytes (characters up to U+00FF) in place of status, headers and body; then the end."""
    garbage: Count | None = None
    """So many bytes that are no HTTP, and then the end."""

    # An answer that breaks.
    stall_after: Count | None = None
    """After so many events nothing more comes; the connection stays open."""
    reset_after: Count | None = None
    """After so many events the connection is reset, in the middle of the next one."""
    reset_after_bytes: Count | None = None
    """After so many bytes of the body the connection is reset."""
    clean_cut_after: Count | None = None
    """After so many events the body ends as if it were complete: no finish reason, no [DONE]."""
    error_in_stream: Count | None = None
    """After so many events an error object; in a reply that is not streamed, an error with status 200."""
    truncate_json: bool = False
    """The JSON breaks off: half the body, or half of the event in the middle of a stream, which then ends."""
    cut_character: bool = False
    """The same, inside a character: its UTF-8 breaks off after two of four bytes."""
    wrong_length: int = 0
    """Content-Length is off by this many bytes; in a stream, the size of the first chunk."""

    # More than a client should take. None of it is made before it leaves, so any amount is good.
    padding_bytes: Count = 0
    """So many spaces before the JSON; in a stream before that of one event, on its line."""
    flood_bytes: Count = 0
    """So many bytes of lines without data before one event, with every line end, NUL and BOM in them."""
    bulk_event: Count = 0
    """The event of a stream that has the padding on its line and the flood before it; 0: the first."""
    encode: Encoding | tuple[Encoding, ...] = ()
    """The body is compressed and says so, with several of them one inside the other."""
    empty_members: Count = 0
    """So many members of gzip that hold nothing, before the one with the body."""
    header_bytes: Count = 0
    """One more header of this size."""
    header_count: Count = 0
    """So many more headers."""

    # Small print.
    no_done: bool = False
    """No [DONE] at the end of a stream."""
    no_usage: bool = False
    """No usage, whatever was asked for."""
    usage_on_finish: bool = False
    """Usage on the chunk with the finish reason, asked for or not, and no chunk of its own."""
    one_byte_chunks: bool = False
    """Each byte of the body in a chunk of its own."""
    crlf: bool = False
    """Lines of a stream end with CR LF."""
    mixed_line_ends: bool = False
    """Lines of a stream end with LF, CR and CR LF, by turns."""
    bom: bool = False
    """The body begins with a byte order mark."""
    comments: bool = False
    """A comment line before each event."""
    hang_up: bool = False
    """The connection is closed after the answer, unannounced."""

    # Left to chance, drawn for each request.
    error_rate: Share = 0.0
    """With this probability an error: the status if it is one, else 500. Otherwise a good answer."""
    truncate_rate: Share = 0.0
    """With this probability the answer is cut off cleanly after 1 to 8 events."""

    def __post_init__(self) -> None:
        if self.empty_members and self.encodings[-1:] != ("gzip",):
            raise ValueError("empty_members needs an 'encode' that ends with gzip; only gzip has members")
        if self.crlf and self.mixed_line_ends:
            raise ValueError("crlf and mixed_line_ends cannot both be; take one")
        if self.raw is not None and max(self.raw, default="") > "\xff":
            raise ValueError("raw holds a character above U+00FF, which is no byte; write UTF-8 as its bytes")

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """What the body is compressed by, in this order."""
        return self.encode if isinstance(self.encode, tuple) else (self.encode,)

    @property
    def answers(self) -> bool:
        """Whether it begins a real answer, whole or broken."""
        return not (
            self.refuse
            or self.hang
            or self.raw is not None
            or self.garbage is not None
            or self.redirect is not None
            or self.html
            or self.empty
            or self.body is not None
            or not 200 <= self.status < 300
        )

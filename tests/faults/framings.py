"""Messages whose end two readers could see at two places, each in a few words and as it goes over the wire.

The classes follow the public list of the HTTP Garden (narfindustries/http-garden, TROPHIES.md, state of
March 2025), which numbers its finds by who was wrong: servers (`s`), forwarders (`t`), others (`b`, `bb`).
`of` names those that a row is about.
"""

from dataclasses import dataclass
from typing import Final

from flow.recorder import JSON, STREAM, chunk, completion, whole
from tiergate.wire import dumps

KEY: Final = "framing-key-4b1d7c20f39a5e86"
CHAT: Final = b"/v1/chat/completions"


def asks(content: str) -> bytes:
    """Write the body of a question, to be told from others by its content."""
    return dumps({"model": "good", "messages": [{"role": "user", "content": content}]})


WORDS: Final = (
    b"Host: localhost\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n" % KEY.encode()
)
HEAD: Final = b"POST %b HTTP/1.1\r\n" % CHAT + WORDS
GET: Final = b"GET /v1/models HTTP/1.1\r\n" + WORDS
BODY: Final = asks("first")
SIZE: Final = b"%d" % len(BODY)
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"


def question(content: str) -> bytes:
    """Write a whole good request."""
    body = asks(content)
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


HIDDEN: Final = question("hidden")
"""A request inside another one's body: whoever answers it was led astray."""


SWALLOWED: Final = HEAD + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
"""A request whose body is one: whoever loses its head answers what is hidden."""


def length(value: bytes, body: bytes = BODY) -> bytes:
    """Ask with this Content-Length."""
    return HEAD + b"Content-Length: " + value + b"\r\n\r\n" + body


def coding(value: bytes, more: bytes = b"") -> bytes:
    """Ask in one good chunk, and call the coding so."""
    return HEAD + more + b"Transfer-Encoding: " + value + b"\r\n\r\n" + chunks()


def chunks(size: bytes = b"%x" % len(BODY), body: bytes = BODY, *, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write one chunk of a size that is said so, and the end."""
    return size + b"\r\n" + body + b"\r\n" + end


def chunked(size: bytes = b"%x" % len(BODY), body: bytes = BODY, *, end: bytes = b"0\r\n\r\n") -> bytes:
    """Ask in one chunk."""
    return HEAD + CHUNKED + chunks(size, body, end=end)


def headed(line: bytes) -> bytes:
    """Ask well, with this line among the headers."""
    return HEAD + line + b"\r\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY


def lined(line: bytes) -> bytes:
    """Ask with this request line, without a body."""
    return line + b"\r\n" + WORDS + b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The first request of a connection; a good second one, the canary, follows it.

    Attributes:
        sent: its bytes.
        of: the finds that it is about.
        statuses: of the answers, where the end of the request is certain.
        asked: the questions that reach the provider then.
    """

    sent: bytes
    of: str = ""
    statuses: tuple[int, ...] = ()
    asked: tuple[str, ...] = ()


REFUSED: Final[dict[str, Row]] = {
    # Content-Length
    "length and chunks, unknown coding": Row(sent=coding(b"blegh", b"Content-Length: 5\r\n"), of="s44 t15"),
    "length with a plus": Row(sent=length(b"+" + SIZE), of="s10 s32"),
    "length with a plus and an underscore": Row(sent=length(b"+1_0"), of="s10"),
    "length with an underscore": Row(sent=length(b"0_" + SIZE), of="s10"),
    "length with a minus": Row(sent=length(b"-48"), of="s26 s32"),
    "length of minus zero": Row(sent=length(b"-0"), of="s26"),
    "length in hexadecimal": Row(sent=length(b"0x%x" % len(BODY)), of="s32 t1"),
    "length of zero in hexadecimal": Row(sent=length(b"0x0"), of="t1"),
    "length followed by a letter": Row(sent=length(SIZE + b"Z"), of="s29"),
    "length with a fraction": Row(sent=length(SIZE + b".0")),
    "length with an exponent": Row(sent=length(b"1e1")),
    "length of two words": Row(sent=length(SIZE + b" " + SIZE)),
    "length after a vertical tab": Row(sent=length(b"\x0b" + SIZE), of="s19"),
    "length after a form feed": Row(sent=length(b"\x0c" + SIZE), of="s19"),
    "length after a hard space": Row(sent=length(b"\xa0" + SIZE), of="s12 s41 s46"),
    "length before a next-line": Row(sent=length(SIZE + b"\x85"), of="s12 s41 s46"),
    "length of other digits": Row(sent=length("\u0666\u0660".encode())),
    "length of full-width digits": Row(sent=length("\uff11".encode())),
    "length above 64 bits": Row(sent=length(b"18446744073709551616")),
    "length that wraps to the true one": Row(sent=length(b"%d" % (2**64 + len(BODY)))),
    "empty length": Row(sent=length(b""), of="s16 s38 t5"),
    "length of blanks": Row(sent=length(b" \t "), of="s16"),
    "empty length before a good one": Row(
        sent=HEAD + b"Content-Length:\r\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY, of="s42 t11"
    ),
    "two lengths, the first is true": Row(
        sent=HEAD + b"Content-Length: " + SIZE + b"\r\nContent-Length: 0\r\n\r\n" + BODY, of="s23 t22"
    ),
    "two lengths, the last is true": Row(
        sent=HEAD + b"Content-Length: 0\r\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY, of="s33 t22"
    ),
    "list of different lengths": Row(sent=length(SIZE + b", 0")),
    "list of equal lengths": Row(sent=length(SIZE + b", " + SIZE)),
    "list with an empty length": Row(sent=length(SIZE + b",")),
    # Transfer-Encoding
    "unknown coding": Row(sent=coding(b"blegh"), of="s44"),
    "xchunked": Row(sent=coding(b"xchunked")),
    "chunkedx": Row(sent=coding(b"chunkedx")),
    "coding in quotes": Row(sent=coding(b'"chunked"')),
    "identity": Row(sent=coding(b"identity")),
    "chunked, identity": Row(sent=coding(b"chunked, identity")),
    "chunked with a parameter": Row(sent=coding(b"chunked;foo=bar")),
    "chunked with a bare parameter": Row(sent=coding(b"chunked;foo")),
    "x tab chunked": Row(sent=coding(b"x\tchunked")),
    "chunked after a vertical tab": Row(sent=coding(b"\x0bchunked"), of="s19"),
    "chunked after a hard space": Row(sent=coding(b"\xa0chunked\xa0"), of="s12"),
    "chunked after high bytes": Row(sent=coding(b"\xffchunked\xff"), of="s46"),
    "chunked after a NUL": Row(sent=coding(b"\0chunked")),
    "chunked before a NUL": Row(sent=coding(b"chunked\0"), of="s35 s43"),
    "empty coding": Row(sent=coding(b"")),
    "chunked, then identity in a second header": Row(
        sent=coding(b"identity", b"Transfer-Encoding: chunked\r\n")
    ),
    "chunked and an empty word": Row(sent=coding(b"chunked,"), of="s21"),
    "an empty word and chunked, and a length": Row(
        sent=coding(b",chunked", b"Content-Length: 5\r\n"), of="s21 t9 t15 t18"
    ),
    # Chunks
    "chunk size with an underscore": Row(sent=chunked(b"0_2e", HIDDEN), of="s1 s22"),
    "chunk size with 0x": Row(sent=chunked(b"0x%x" % len(BODY)), of="s1 s25 t7 t19"),
    "chunk size with a plus": Row(sent=chunked(b"+%x" % len(BODY)), of="s1 s25 t19"),
    "chunk size with a minus": Row(sent=chunked(b"-%x" % len(BODY)), of="s1 s25 t19"),
    "last chunk of minus zero": Row(sent=HEAD + CHUNKED + b"-0x0\r\n\r\n", of="t19"),
    "chunk size after blanks": Row(sent=HEAD + CHUNKED + b"           0\r\n\r\n", of="t24"),
    "chunk size that is none": Row(sent=HEAD + CHUNKED + b"Z\r\nZZ\r\nZZZ\r\n\r\n", of="t2"),
    "last chunk ended by bare line feeds": Row(sent=chunked(end=b"0\n\n"), of="t13"),
    "last chunk ended by CR and another byte": Row(sent=chunked(end=b"0\r\n\rX"), of="s30 s39"),
    "chunk size of words": Row(sent=HEAD + CHUNKED + b"INVALID!!!\r\n" + HIDDEN, of="s47 t4"),
    "chunk size followed by words": Row(
        sent=HEAD + CHUNKED + b"1these-bytes-are-looked-at\r\nZ\r\n0\r\n\r\n", of="s22 t7"
    ),
    "chunk size in full-width digits": Row(sent=chunked("\uff10".encode())),
    "empty chunk size": Row(sent=HEAD + CHUNKED + b"\r\n\r\n", of="s17 s25"),
    "empty line between chunks": Row(sent=chunked(end=b"\r\n0\r\n\r\n"), of="s17 t17"),
    "chunk size of 17 digits": Row(sent=chunked(b"1%016x" % len(BODY))),
    "chunk size above 64 bits": Row(sent=chunked(b"f" * 17)),
    "chunk size above 128 bits": Row(sent=chunked(b"f" * 33)),
    "chunk longer than it says": Row(sent=chunked(b"1")),
    "chunk without its line end": Row(sent=HEAD + CHUNKED + b"%x\r\n%b0\r\n\r\n" % (len(BODY), BODY)),
    "chunk ended by two other bytes": Row(
        sent=HEAD + CHUNKED + b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY), of="s39"
    ),
    "chunk size line ended by a bare line feed": Row(
        sent=HEAD + CHUNKED + b"%x\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), of="t13"
    ),
    "chunk ended by a bare line feed": Row(
        sent=HEAD + CHUNKED + b"%x\r\n%b\n0\r\n\r\n" % (len(BODY), BODY), of="t13"
    ),
    "chunk size line ended by a bare carriage return": Row(
        sent=HEAD + CHUNKED + b"%x\r%b\r\n0\r\n\r\n" % (len(BODY), BODY), of="s31 t4"
    ),
    "carriage return before an extension": Row(
        sent=HEAD + CHUNKED + b"2\r\r;a\r\n02\r\n41\r\n0\r\n\r\n" + HIDDEN, of="s31 t3"
    ),
    "carriage return inside an extension": Row(
        sent=HEAD + CHUNKED + b"41;a=b\r\r" + b"X" * 65 + b"\r\n0\r\n\r\n" + HIDDEN, of="s36"
    ),
    "line feed inside an extension": Row(sent=chunked(b"%x;a\nb" % len(BODY))),
    "line feed at the end of an extension": Row(
        sent=HEAD + CHUNKED + b"%x;a\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    ),
    "endless extensions": Row(sent=chunked(b"%x;" % len(BODY) + b"a" * 100_000)),
    "trailer that is folded": Row(sent=chunked(end=b"0\r\nX-A: 1\r\n b\r\n\r\n")),
    "trailer without a colon": Row(sent=chunked(end=b"0\r\nX-A\r\n\r\n")),
    "endless trailers": Row(sent=chunked(end=b"0\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n")),
    # Names
    "space before the colon": Row(sent=headed(b"X-A : 1"), of="s3"),
    "space before the colon of the length": Row(
        sent=HEAD + b"Content-Length : " + SIZE + b"\r\n\r\n" + BODY, of="s3"
    ),
    "tab before the colon of the coding": Row(
        sent=HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n" + chunks(), of="s3"
    ),
    "blank before the first name": Row(
        sent=b"POST %b HTTP/1.1\r\n\tContent-Length: 1\r\n" % CHAT + WORDS + b"\r\nX", of="s4"
    ),
    "no colon": Row(sent=HEAD + b"Content-Length " + SIZE + b"\r\n\r\n" + BODY, of="s28 t14"),
    "name without a value or a colon": Row(sent=headed(b"X-A"), of="t14"),
    "empty name": Row(sent=headed(b": ignored"), of="s18"),
    "nothing but a colon": Row(sent=headed(b":"), of="s27"),
    "name in two lines": Row(
        sent=HEAD + b"Transfer-\r\nEncoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunks(), of="s37"
    ),
    "name split by a line feed": Row(sent=headed(b"Te\nst: test"), of="t14 t20"),
    "next-line at the end of a name": Row(
        sent=HEAD + b"Content-Length\x85: " + SIZE + b"\r\n\r\n" + BODY, of="s20 t6"
    ),
    "hard space at the end of a name": Row(
        sent=HEAD + b"Content-Length\xa0: " + SIZE + b"\r\n\r\n" + BODY, of="s20"
    ),
    "byte above 127 in a name": Row(sent=headed(b"\xefoo: bar"), of="s8 t6"),
    "NUL in a name": Row(sent=headed(b"X\0A: 1"), of="s14 t20"),
    "NUL at the end of a name": Row(sent=headed(b"c\0: 1"), of="s14 t20"),
    "control byte in a name": Row(sent=headed(b"X\x01A: 1"), of="s14"),
    "DEL in a name": Row(sent=headed(b"X\x7fA: 1"), of="s14"),
    "quote in a name": Row(sent=headed(b'X"A: 1'), of="s14"),
    "bracket in a name": Row(sent=headed(b"X(A): 1"), of="s14"),
    "slash in a name": Row(sent=headed(b"X/A: 1"), of="s14"),
    "at sign in a name": Row(sent=headed(b"X@A: 1"), of="s14 t6"),
    "space in a name": Row(sent=headed(b"X A: 1"), of="s14"),
    # Values
    "folded header": Row(sent=headed(b"X-A: 1\r\n b")),
    "folded header after a tab": Row(sent=headed(b"X-A: 1\r\n\tb")),
    "folded coding": Row(sent=HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + chunks()),
    "folded by nothing but a blank": Row(sent=headed(b"X-A: 1\r\n ")),
    "NUL in a value": Row(sent=headed(b"X-A: a\0b"), of="s2 s35 t12"),
    "NUL at the end of a value": Row(sent=headed(b"X-A: evil\0"), of="s43"),
    "carriage return in a value": Row(sent=headed(b"X-A: va\rlue"), of="s2 s34 t10"),
    "carriage return for a line end": Row(sent=headed(b"Visible: 1\rSmuggled: 2"), of="s13"),
    "carriage return before the length": Row(
        sent=HEAD + b"X-A: a\rContent-Length: " + SIZE + b"\r\n\r\n" + BODY, of="s13"
    ),
    "head ended by CR LF CR and another byte": Row(sent=GET + b"\rZ" + HIDDEN, of="s30"),
    "control byte in a value": Row(sent=headed(b"X-A: a\x01b")),
    "DEL in a value": Row(sent=headed(b"X-A: a\x7fb")),
    "NUL in the host": Row(sent=HEAD.replace(b"localhost", b"localhost\0.example") + b"\r\n", of="t12"),
    # Request line
    "line feed for the space": Row(sent=lined(b"GET /\nHTTP/1.1"), of="s9"),
    "version of another minor": Row(sent=lined(b"GET /v1/models HTTP/1.32"), of="s5"),
    "version that wraps": Row(sent=lined(b"GET /v1/models HTTP/4294967295.255"), of="s24"),
    "version with carriage returns": Row(sent=lined(b"GET /v1/models HTTP/\r\r1.1"), of="s15"),
    "version of many digits": Row(sent=lined(b"\0 / HTTP/............0596.7407."), of="s40"),
    "version in lower case": Row(sent=lined(b"GET /v1/models http/1.1")),
    "version 1": Row(sent=lined(b"GET /v1/models HTTP/1")),
    "version 0.9": Row(sent=lined(b"GET /v1/models HTTP/0.9")),
    "version 2.0": Row(sent=lined(b"GET /v1/models HTTP/2.0")),
    "version of another protocol": Row(sent=lined(b"GET /v1/models ICE/1.0")),
    "no version": Row(sent=b"GET /v1/models\r\n"),
    "two spaces": Row(sent=lined(b"GET  /v1/models HTTP/1.1")),
    "space behind the version": Row(sent=lined(b"GET /v1/models HTTP/1.1 ")),
    "space before the method": Row(sent=b" " + length(SIZE)),
    "carriage return before the method": Row(sent=b"\r" + length(SIZE)),
    "byte above 127 in the target": Row(sent=lined(b"GET /v1/models\xff HTTP/1.1")),
    "whole target without a host": Row(sent=lined(b"GET http:///v1/models HTTP/1.1")),
    "no target": Row(sent=lined(b"GET HTTP/1.1")),
    "preface of HTTP/2": Row(
        sent=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0=\1\5\0\0\0\1\0\n:path", of="bb1 bb2"
    ),
    "method that is no word": Row(sent=lined(b'G=":<>(e),[T];?" /v1/models HTTP/1.1'), of="s6"),
    "NUL in the method": Row(sent=lined(b"GE\0T /v1/models HTTP/1.1"), of="s40"),
    "space in the target": Row(sent=lined(b"GET /v1/models /x HTTP/1.1")),
    "NUL in the target": Row(sent=lined(b"GET /v1/mod\0els HTTP/1.1")),
    "control byte in the target": Row(sent=lined(b"GET /v1/mod\x01els HTTP/1.1")),
    "tab for the space": Row(sent=lined(b"GET\t/v1/models\tHTTP/1.1")),
    "vertical tab for the space": Row(sent=lined(b"GET\x0b/v1/models HTTP/1.1")),
    "request line that is folded": Row(sent=lined(b"GET /v1/models\r\n HTTP/1.1")),
    "chunked in HTTP/1.0": Row(sent=chunked().replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    "chunked in HTTP/1.0, to go on": Row(
        sent=coding(b"chunked", b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    ),
}
"""What no reader may take for a request: at most one refusal comes back, and the connection ends."""


def both(sent: bytes, of: str = "") -> Row:
    """Say that the question is answered, and then the canary."""
    return Row(sent=sent, of=of, statuses=(200, 200), asked=("first", "canary"))


def then_canary(sent: bytes, status: int, of: str = "") -> Row:
    """Say that the first request asks nobody, and that the canary is answered."""
    return Row(sent=sent, of=of, statuses=(status, 200), asked=("canary",))


def alone(sent: bytes, of: str = "") -> Row:
    """Say that the question is answered, and that nothing behind it is read."""
    return Row(sent=sent, of=of, statuses=(200,), asked=("first",))


def last(sent: bytes, of: str = "") -> Row:
    """Say that it is refused, and that nothing behind it is read."""
    return Row(sent=sent, of=of, statuses=(400,))


FRAMED: Final[dict[str, Row]] = {
    # One way to read it: what follows is a request of its own.
    "by its length": both(length(SIZE), of="b2 b5"),
    "length with zeros before it": both(length(b"0" + SIZE), of="s32"),
    "length between blanks": both(length(b" \t" + SIZE + b"\t ")),
    "equal lengths": both(HEAD + (b"Content-Length: " + SIZE + b"\r\n") * 2 + b"\r\n" + BODY),
    "length of nothing": Row(
        sent=length(b"0", HIDDEN), of="s48 b1", statuses=(400, 200, 200), asked=("hidden", "canary")
    ),
    "request in a body": then_canary(length(b"%d" % len(HIDDEN), HIDDEN), 400),
    "request in the body of a GET": then_canary(
        GET + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, 200, of="t21"
    ),
    "request in the body of a HEAD": then_canary(
        length(b"%d" % len(HIDDEN), HIDDEN).replace(b"POST", b"HEAD", 1), 405
    ),
    "no length": then_canary(HEAD + b"\r\n", 400),
    "empty lines before it": both(b"\r\n\r\n" + length(SIZE)),
    "bytes above 127 in a value": both(headed(b"User: \x85admin\xa0"), of="s41"),
    "every byte of a name": both(headed(b"!#$%&'*+-.^_`|~9: 1")),
    "underscore for the hyphen": both(headed(b"Content_Length: 0\r\nTransfer_Encoding: chunked")),
    "framing named as of one hop": both(headed(b"Connection: content-length, authorization")),
    "leave is asked for": Row(
        sent=headed(b"Expect: 100-continue"), statuses=(100, 200, 200), asked=("first", "canary")
    ),
    "offer of h2c": both(
        headed(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk")
    ),
    "another method in a header": both(headed(b"X-HTTP-Method-Override: GET")),
    "HTTP/1.0 that goes on": both(headed(b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    "byte behind the body": Row(sent=length(SIZE) + b"X", of="b3", statuses=(200, 400), asked=("first",)),
    "target that is no path": then_canary(lined(b"GET ! HTTP/1.1"), 400, of="s7"),
    "target with a scheme": then_canary(lined(b"GET http://localhost/v1/models HTTP/1.1"), 200),
    "target with a fragment": then_canary(lined(b"GET /v1/models#/v1/key HTTP/1.1"), 200),
    "method of odd bytes": then_canary(lined(b"G!T /v1/models HTTP/1.1"), 400, of="s6"),
    "CONNECT": then_canary(lined(b"CONNECT localhost:80 HTTP/1.1"), 400),
    "two hosts": then_canary(headed(b"Host: localhost"), 421),
    "host between bytes above 127": then_canary(
        length(SIZE).replace(b"localhost", b"\xfflocalhost\xff", 1), 421, of="s46"
    ),
    # A bare line feed ends a line, which RFC 9112 (2.2) allows and granian does.
    "bare line feeds": both(length(SIZE).replace(b"\r\n", b"\n"), of="t16"),
    "bare line feed behind a value": both(headed(b"X-A: a\nX-B: c"), of="s2"),
    "bare line feeds that end the head": Row(
        sent=HEAD + b"X-A:\n\n" + HIDDEN, of="s19", statuses=(400, 200, 200), asked=("hidden", "canary")
    ),
    # What says so, and whatever comes in chunks, is the last request of its connection.
    "the last by its own word": alone(headed(b"Connection: close") + b"Invalid\r\n\r\n", of="s45"),
    "HTTP/1.0": alone(length(SIZE).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    "in chunks": alone(chunked(), of="b4"),
    "in chunks, and a byte behind": alone(chunked() + b"\0", of="b3"),
    "length and chunks": alone(coding(b"chunked", b"Content-Length: 5\r\n"), of="t23"),
    "chunks and length": alone(
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunks(), of="t23"
    ),
    "chunks and no length": last(
        HEAD + b"Content-Length: %d\r\n" % len(HIDDEN) + CHUNKED + b"0\r\n\r\n" + HIDDEN, of="t23"
    ),
    "chunked in capitals": alone(coding(b"ChunKed")),
    "chunked between blanks": alone(coding(b"\t chunked \t")),
    "an empty word and chunked": last(coding(b",chunked"), of="s21 t9 t18"),
    "chunked, chunked": last(coding(b"chunked, chunked"), of="s11 t25"),
    "chunked in two headers": last(coding(b"chunked", b"Transfer-Encoding: chunked\r\n"), of="s11 t25"),
    "identity, then chunked in a second header": last(coding(b"chunked", b"Transfer-Encoding: identity\r\n")),
    "gzip, chunked": last(coding(b"gzip, chunked")),
    "chunk sizes with zeros": alone(chunked(b"000%x" % len(BODY), end=b"000\r\n\r\n")),
    "blanks behind a chunk size": alone(chunked(b"%x \t" % len(BODY))),
    "extension": alone(chunked(b"%x;a=b;c" % len(BODY))),
    "extension in quotes": alone(chunked(b'%x;a="b;\\"c"' % len(BODY))),
    "extension of odd bytes": alone(chunked(b"%x;a\0\xff" % len(BODY))),
    "request in a chunk": last(chunked(b"%x" % len(HIDDEN), HIDDEN)),
    "request in a chunk behind what looks like the end": last(
        chunked(b"%x" % (len(HIDDEN) + 5), b"0\r\n\r\n" + HIDDEN), of="t17"
    ),
    "request behind chunks of nothing": last(HEAD + CHUNKED + b"0\r\n\r\n" + HIDDEN, of="s47"),
    "trailers": alone(chunked(end=b"0\r\nX-A: 1\r\n\r\n")),
    "trailers named as framing": alone(
        chunked(end=b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
    ),
    "trailer named as a key and a host": alone(
        chunked(end=b"0\r\nAuthorization: Bearer x\r\nHost: evil.example\r\n\r\n")
    ),
    "trailer that looks like a request": last(
        HEAD + CHUNKED + b"0\r\nX:POST / HTTP/1.1\r\n\r\n" + HIDDEN, of="s39"
    ),
    # Here granian is wrong: it takes the next head for trailers. So nothing behind chunks is read.
    "trailer ended by a bare line feed": alone(chunked(end=b"0\r\nX-A: 1\n\r\n") + SWALLOWED, of="t13"),
    "trailers ended by a bare line feed": alone(chunked(end=b"0\r\nX-A: 1\r\n\n") + SWALLOWED, of="t13"),
    "chunks ended by a bare line feed": alone(chunked(end=b"0\r\n\n") + SWALLOWED, of="t13"),
}
"""What has one end: what is behind it is judged by itself, or is not read."""


# What a provider sends.

SURPLUS: Final = whole(completion("canary"))
MINE: Final = completion("mine")
MINE_SIZE: Final = b"%d" % len(MINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a provider sends for a question, a reply that nobody asked for included.

    Attributes:
        sent: its bytes.
        good: whether it is an answer, with the surplus behind it.
        streamed: whether it answers a question for a stream.
    """

    sent: bytes
    good: bool = False
    streamed: bool = False


def reply(
    headers: bytes, body: bytes = MINE, *, line: bytes = b"HTTP/1.1 200 OK", good: bool = False
) -> Reply:
    """Write a reply with these headers."""
    return Reply(sent=line + b"\r\n" + JSON + headers + b"\r\n\r\n" + body + SURPLUS, good=good)


def of_length(value: bytes) -> Reply:
    """Reply with this Content-Length."""
    return reply(b"content-length: " + value)


def of_coding(value: bytes) -> Reply:
    """Reply in one good chunk, and call the coding so."""
    return reply(b"transfer-encoding: " + value, chunks(b"%x" % len(MINE), MINE))


def in_chunks(
    size: bytes = b"%x" % len(MINE), *, body: bytes = MINE, end: bytes = b"0\r\n\r\n", good: bool = False
) -> Reply:
    """Reply in one chunk."""
    return reply(b"transfer-encoding: chunked", chunks(size, body, end=end), good=good)


def with_header(header: bytes) -> Reply:
    """Reply well, with this among the headers."""
    return reply(header + b"\r\ncontent-length: " + MINE_SIZE)


def with_line(line: bytes) -> Reply:
    """Reply well, behind this status line."""
    return reply(b"content-length: " + MINE_SIZE, line=line)


_EVENTS: Final = b"data: %b\n\ndata: [DONE]\n\n" % chunk("mine", finish="stop")
_STREAM: Final = b"HTTP/1.1 200 OK\r\n" + STREAM + b"transfer-encoding: chunked\r\n\r\n"

REPLIES: Final[dict[str, Reply]] = {
    "by its length": reply(b"content-length: " + MINE_SIZE, good=True),
    "by its length, and half a reply": Reply(
        sent=b"HTTP/1.1 200 OK\r\n"
        + JSON
        + b"content-length: "
        + MINE_SIZE
        + b"\r\n\r\n"
        + MINE
        + SURPLUS[:-5],
        good=True,
    ),
    "by its length, and a byte": Reply(
        sent=b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: " + MINE_SIZE + b"\r\n\r\n" + MINE + b"H",
        good=True,
    ),
    "in chunks": in_chunks(good=True),
    "extension": in_chunks(b"%x;a=b" % len(MINE), good=True),
    "trailers": in_chunks(end=b"0\r\nx-a: 1\r\nset-cookie: canary=1\r\n\r\n", good=True),
    "trailers named as framing": in_chunks(
        end=b"0\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    ),
    "hint before it": reply(
        b"content-length: " + MINE_SIZE,
        line=b"HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK",
        good=True,
    ),
    "HTTP/1.0": reply(b"content-length: " + MINE_SIZE, line=b"HTTP/1.0 200 OK", good=True),
    "stream": Reply(sent=_STREAM + chunks(b"%x" % len(_EVENTS), _EVENTS) + SURPLUS, good=True, streamed=True),
    "stream with a chunk size with 0x": Reply(
        sent=_STREAM + chunks(b"0x%x" % len(_EVENTS), _EVENTS) + SURPLUS, streamed=True
    ),
    "stream in an unknown coding": Reply(
        sent=_STREAM.replace(b"chunked", b"xchunked") + chunks(b"%x" % len(_EVENTS), _EVENTS) + SURPLUS,
        streamed=True,
    ),
    "length and chunks": reply(
        b"content-length: 5\r\ntransfer-encoding: chunked", chunks(b"%x" % len(MINE), MINE)
    ),
    "chunks and length": reply(
        b"transfer-encoding: chunked\r\ncontent-length: 5", chunks(b"%x" % len(MINE), MINE)
    ),
    "two lengths": reply(b"content-length: 5\r\ncontent-length: " + MINE_SIZE),
    "equal lengths": reply((b"content-length: " + MINE_SIZE + b"\r\n") * 2 + b"x-a: b"),
    "list of lengths": of_length(MINE_SIZE + b", " + MINE_SIZE),
    "length with a plus": of_length(b"+" + MINE_SIZE),
    "length with a minus": of_length(b"-" + MINE_SIZE),
    "length in hexadecimal": of_length(b"0x%x" % len(MINE)),
    "length with an underscore": of_length(b"0_" + MINE_SIZE),
    "length followed by a letter": of_length(MINE_SIZE + b"Z"),
    "length of other digits": of_length("\u0661".encode()),
    "length after a vertical tab": of_length(b"\x0b" + MINE_SIZE),
    "length after a hard space": of_length(b"\xa0" + MINE_SIZE),
    "length that wraps to the true one": of_length(b"%d" % (2**64 + len(MINE))),
    "empty length": of_length(b""),
    "unknown coding": of_coding(b"xchunked"),
    "an empty word and chunked": of_coding(b",chunked"),
    "chunked, chunked": of_coding(b"chunked, chunked"),
    "chunked, identity": of_coding(b"chunked, identity"),
    "gzip, chunked": of_coding(b"gzip, chunked"),
    "identity": of_coding(b"identity"),
    "chunked with a parameter": of_coding(b"chunked;foo"),
    "x tab chunked": of_coding(b"x\tchunked"),
    "chunked after a vertical tab": of_coding(b"\x0bchunked"),
    "chunked after a hard space": of_coding(b"\xa0chunked"),
    "chunked before a NUL": of_coding(b"chunked\0"),
    "chunked in two headers": reply(
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", chunks(b"%x" % len(MINE), MINE)
    ),
    "folded coding": reply(b"transfer-encoding:\r\n chunked", chunks(b"%x" % len(MINE), MINE)),
    "chunk size with 0x": in_chunks(b"0x%x" % len(MINE)),
    "chunk size with a plus": in_chunks(b"+%x" % len(MINE)),
    "chunk size with a minus": in_chunks(b"-%x" % len(MINE)),
    "chunk size with an underscore": in_chunks(b"0_%x" % len(MINE)),
    "chunk size after a blank": in_chunks(b" %x" % len(MINE)),
    "chunk size that wraps to the true one": in_chunks(b"1%016x" % len(MINE)),
    "empty chunk size": in_chunks(b""),
    "chunk longer than it says": in_chunks(b"5"),
    "chunk without its line end": reply(
        b"transfer-encoding: chunked", b"%x\r\n%b0\r\n\r\n" % (len(MINE), MINE)
    ),
    "chunks between bare line feeds": reply(
        b"transfer-encoding: chunked", b"%x\n%b\n0\n\n" % (len(MINE), MINE)
    ),
    "last chunk ended by a bare line feed": in_chunks(end=b"0\r\n\n"),
    "trailer ended by a bare line feed": in_chunks(end=b"0\r\nx-a: 1\n\r\n"),
    "carriage return in an extension": in_chunks(b"%x;a\rb" % len(MINE)),
    "line feed in an extension": in_chunks(b"%x;a\nb" % len(MINE)),
    "space before the colon": with_header(b"x-a : 1"),
    "folded header": with_header(b"x-a: 1\r\n b"),
    "NUL in a name": with_header(b"x\0a: 1"),
    "NUL in a value": with_header(b"x-a: a\0b"),
    "carriage return in a value": with_header(b"x-a: a\rb"),
    "no colon": with_header(b"x-a"),
    "empty name": with_header(b": a"),
    "next-line at the end of a name": with_header(b"x-a\x85: 1"),
    "bare line feed behind a value": with_header(b"x-a: 1\nx-b: 2"),
    "version 0.9": with_line(b"HTTP/0.9 200 OK"),
    "version 2": with_line(b"HTTP/2 200 OK"),
    "version 1.10": with_line(b"HTTP/1.10 200 OK"),
    "version in lower case": with_line(b"http/1.1 200 OK"),
    "status of four digits": with_line(b"HTTP/1.1 2000 OK"),
    "status below 100": with_line(b"HTTP/1.1 099 OK"),
    "status with a plus": with_line(b"HTTP/1.1 +20 OK"),
    "another protocol is offered": with_line(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket"),
    "status line ended by a bare line feed": Reply(
        sent=b"HTTP/1.1 200 OK\ncontent-length: " + MINE_SIZE + b"\n\n" + MINE + SURPLUS
    ),
}
"""What a server may say. Behind each stands a whole reply that nobody asked for."""

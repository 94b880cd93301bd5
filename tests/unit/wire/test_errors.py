"""Error objects, in every spelling that servers use."""

import json

import pytest

from tiergate.wire import ErrorBody, read_error, write_error


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}',
            ErrorBody("m", "t", "p", "c"),
        ),
        (b'{"error":{"message":"m","type":null,"param":null,"code":404}}', ErrorBody("m", None, None, "404")),
        (b'{"error":{}}', ErrorBody(None)),
        (b'{"error":{"message":{"text":"m"},"code":1.5,"type":true}}', ErrorBody(None)),
        (b'{"error":"text"}', ErrorBody("text")),
        (
            b'{"object":"error","message":"m","type":"t","param":null,"code":400}',
            ErrorBody("m", "t", None, "400"),
        ),
        (b'{"message":"m"}', ErrorBody("m")),
        (b'[{"error":{"message":"m","code":400}}]', ErrorBody("m", None, None, "400")),
        (b'{"error":""}', None),
        (b'{"error":null}', None),
        (b'{"error":5}', None),
        (b'{"message":"m","choices":[]}', None),
        (b'{"detail":"Not Found"}', None),
        (b"[]", None),
        (b"[{},{}]", None),
        (b"{}", None),
        (b'"text"', None),
        (b"", None),
        (b"<html>", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_an_error_object_is_read_as_leniently_as_servers_write_it(
    data: bytes, error: ErrorBody | None
) -> None:
    """And never raises."""
    assert read_error(data) == error


def test_what_we_write_we_read() -> None:
    """The dialect's four fields, always all of them."""
    written = write_error('no "x"\n', type="invalid_request_error", code="invalid_request", param="x")
    assert json.loads(written) == {
        "error": {
            "message": 'no "x"\n',
            "type": "invalid_request_error",
            "param": "x",
            "code": "invalid_request",
        }
    }
    assert read_error(written) == ErrorBody('no "x"\n', "invalid_request_error", "x", "invalid_request")
    assert json.loads(write_error("m", type="t", code="c"))["error"]["param"] is None

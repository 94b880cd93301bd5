"""Keys for one purpose each, derived from the house's one secret."""

import hmac
from hashlib import sha256


def derived(secret: bytes, purpose: bytes) -> bytes:
    """Derive a key of 32 bytes for one purpose from a secret: HKDF with SHA-256 and no salt (RFC 5869).

    >>> derived(bytes.fromhex("0b" * 22), b"").hex()[:16]
    '8da4e775a563c18f'
    """
    extracted = hmac.digest(bytes(sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")

"""Until when a certificate is valid: the one thing in it that `ssl` has no public way to read.

A certificate is nested values in DER, each a tag, a length and a content (ITU-T X.690). Its second
level is version, serial number, algorithm, issuer, validity and so on (RFC 5280, section 4.1).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_PEM = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION_TAG = 0xA0
_TIME_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


def valid_until(pem: bytes) -> datetime:
    """Return when the first certificate of a PEM file expires; ValueError if there is none."""
    found = _PEM.search(pem.decode("ascii", "replace"))
    if found is None:
        raise ValueError("there is no certificate")
    try:
        (_, certificate), *_ = _values(ssl.PEM_cert_to_DER_cert(found[0]))
        (_, signed), *_ = _values(certificate)
        fields = [content for tag, content in _values(signed) if tag != _VERSION_TAG]
        _, (tag, text) = _values(fields[3])
        return datetime.strptime(text.decode(), _TIME_FORMATS[tag]).replace(tzinfo=UTC)
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError("the certificate is damaged") from error


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of values that follow one another."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size])
            at += size
        yield tag, data[at : at + length]
        at += length

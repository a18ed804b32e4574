"""`python probe.py encoder|decoder`: is the service in this container serving? Exit status 0 or 1.

It asks gRPC's health service over the socket with nothing but Python's standard library, in 20 ms:
a check that runs every few seconds must not cost more than the service. It is a file of its own
that imports nothing of ours. Where to ask, and whether over TLS, it reads from the service's
variables; we know who we are talking to, so the certificate is not checked. `splitformer health`
is the command for people.
"""

import os
import socket
import struct
import sys

SECONDS = 2.0
_SERVING = b"\0\0\0\0\2\10\1"  # a message of two bytes: field 1 is SERVING
_HEADERS, _DATA, _END_HEADERS, _END_STREAM, _SETTINGS = 1, 0, 4, 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_POST, _HTTP, _HTTPS = b"\x83", b"\x86", b"\x87"  # entries of HPACK's static table


def is_serving(host: str, port: int, tls: tuple[str, str] | None) -> bool:
    """Ask for the health of the server as a whole; OSError if it does not answer.

    Args:
        host: Where it listens.
        port: Its gRPC port.
        tls: Files of certificate and key to show; None: without TLS.
    """
    with socket.create_connection((host, port), SECONDS) as plain:
        connection = _secured(plain, *tls) if tls else plain
        connection.sendall(_request(_HTTPS if tls else _HTTP))
        received = bytearray()
        while _SERVING not in received:
            part = connection.recv(4096)
            if not part:
                return False
            received += part
            if _finished(bytes(received)):
                break
        return _SERVING in received


def _secured(plain: socket.socket, certificate: str, key: str) -> socket.socket:
    import ssl  # noqa: PLC0415 (only where there is TLS: it takes as long as all the rest)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    return context.wrap_socket(plain)


def _request(scheme: bytes) -> bytes:
    """The connection's beginning and the call of grpc.health.v1.Health/Check with no name."""
    fields = (
        _POST
        + scheme
        + _field(b"\x04", b"/grpc.health.v1.Health/Check")
        + _field(b"\x01", b"localhost")
        + _field(b"\x0f\x10", b"application/grpc")
        + _field(b"\x00\x02te", b"trailers")
    )
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, fields)
        + _frame(_DATA, _END_STREAM, 1, bytes(5))  # an empty message
    )


def _field(name: bytes, value: bytes) -> bytes:
    """A header field, spelled out and not to be remembered."""
    return name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBBI", len(payload), kind, flags, stream)[1:] + payload


def _finished(received: bytes) -> bool:
    """True once a frame says that the answer has ended."""
    at = 0
    while at + 9 <= len(received):
        length = int.from_bytes(received[at : at + 3], "big")
        kind, flags = received[at + 3], received[at + 4]
        if kind in (_HEADERS, _DATA) and flags & _END_STREAM:
            return at + 9 + length <= len(received)
        at += 9 + length
    return False


def main(service: str) -> int:
    """Ask the service whose variables are in the environment; return the exit status."""
    prefix = f"SPLITFORMER_{service.upper()}_"
    port = os.environ.get(prefix + "PORT") or {"encoder": "50051", "decoder": "50052"}[service]
    certificate = os.environ.get(prefix + "TLS_CERTIFICATE")
    tls = (certificate, os.environ.get(prefix + "TLS_KEY", "")) if certificate else None
    try:
        serving = is_serving("127.0.0.1", int(port), tls)
    except OSError as error:
        return _say(f"{service}: {error}", 1)
    return _say(f"{service}: {'SERVING' if serving else 'not serving'}", 0 if serving else 1)


def _say(text: str, status: int) -> int:
    sys.stdout.write(text + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Certificates made on the spot, with the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    def renew_from(self, other: Pair) -> None:
        """Put another pair in place of this one, as a renewal does: one file after the other."""
        for ours, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            fresh = ours.with_suffix(".new")
            fresh.write_bytes(theirs.read_bytes())
            fresh.replace(ours)


class Authority:
    """Signs certificates for servers and callers on this machine.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        self._openssl("req", "-x509", *_KEY, *self._out("ca"), "-subj", "/CN=ca", "-days", "2")

    def pair(self, name: str, days: int = 2) -> Pair:
        """Make a certificate for this machine, with `name` as its common name."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, names = self._folder / f"{name}.csr", self._folder / "names"
        names.write_text(_NAMES)
        out = ("-keyout", str(pair.key), "-out", str(request))
        self._openssl("req", *_KEY, *out, "-subj", f"/CN={name}")
        signer = ("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial")
        files = ("-in", str(request), "-out", str(pair.certificate), "-extfile", str(names))
        self._openssl("x509", "-req", *files, *signer, "-days", str(days))
        return pair

    def _out(self, name: str) -> tuple[str, ...]:
        return (
            *("-keyout", str(self._folder / f"{name}.key")),
            *("-out", str(self._folder / f"{name}.pem")),
        )

    @staticmethod
    def _openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

"""Images in place of those that cannot be pulled here: Debian's own packages on a debootstrap root.

Python and g++ stand in for the official Python images, and Debian's Prometheus and HAProxy for
theirs. Grafana is in no Debian: its stand-in only checks that the files it would read lie where it
reads them. They are made once and kept under their tags.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

_MIRROR = "http://deb.debian.org/debian"
_RELEASE = "bookworm"
_VERSION = "1"
"""To be raised when a recipe below changes."""

_INSTALL = "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends"
_GRAFANA = """
import http.server, json, pathlib
assert list(pathlib.Path("/etc/grafana/provisioning/datasources").glob("*.yml"))
assert list(pathlib.Path("/etc/grafana/provisioning/dashboards").glob("*.yml"))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = sorted(pathlib.Path("/var/lib/grafana/dashboards").glob("*.json"))
        titles = [json.loads(file.read_text())["title"] for file in found]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(titles).encode())
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()
"""
_RECIPES = {
    "build": f"{_INSTALL} g++ python3-venv",
    "prometheus": (
        f"{_INSTALL} prometheus wget\n"
        "RUN mkdir /prometheus && chown 65534:65534 /prometheus\n"
        'ENTRYPOINT ["prometheus"]'
    ),
    "haproxy": f"{_INSTALL} haproxy wget",
    "grafana": (
        f'{_INSTALL} wget\nCOPY grafana.py /grafana.py\nENTRYPOINT ["python3", "/grafana.py"]'
    ),
}


def tag(name: str) -> str:
    """The tag of a stand-in; `base` is what the others are made from."""
    return f"splitformer-stand-in/{name}:{_VERSION}"


def make_all(engine: docker.DockerClient) -> dict[str, str]:
    """Make those that are not there; return the tags by name."""
    if not _exists(engine, tag("base")):
        _make_base()
    for name, recipe in _RECIPES.items():
        if not _exists(engine, tag(name)):
            _make(engine, name, recipe)
    return {name: tag(name) for name in ("base", *_RECIPES)}


def _exists(engine: docker.DockerClient, name: str) -> bool:
    try:
        engine.images.get(name)
    except ImageNotFound:
        return False
    return True


def _make_base() -> None:
    """A minimal Debian with Python, straight from a mirror."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        packages = "--include=python3,ca-certificates"
        command = ["debootstrap", "--variant=minbase", packages, _RELEASE, str(root), _MIRROR]
        subprocess.run(command, check=True, capture_output=True)
        for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
            subprocess.run(["find", str(root / leftover), "-type", "f", "-delete"], check=True)
        packed = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "import", "-", tag("base")],
            stdin=packed.stdout,
            check=True,
            capture_output=True,
        )
        assert packed.wait() == 0


def _make(engine: docker.DockerClient, name: str, recipe: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(f"FROM {tag('base')}\n{recipe}\n")
        Path(folder, "grafana.py").write_text(_GRAFANA)
        engine.images.build(path=folder, tag=tag(name), network_mode="host", rm=True)

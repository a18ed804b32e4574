"""The Compose files and `.env` agree with each other and with the services' settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from splitformer_client.settings import Settings
from tests.support.markdown import ROOT
from tools import compose_settings

FOLDER = ROOT / "deploy"
FILES = sorted(FOLDER.glob("compose*.yaml"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
_REFERENCE = re.compile(r"\$\{(\w+)\}")
DEFAULTS = dict(
    line.split("=", 1)
    for line in (FOLDER / ".env").read_text().splitlines()
    if line and not line.startswith("#")
)


def services(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())["services"]
    return found


def test_every_variable_has_a_default_and_every_default_is_used() -> None:
    used = {name for file in FILES for name in _REFERENCE.findall(file.read_text())}
    passed_on = {name for name in DEFAULTS if name.startswith("SPLITFORMER_")}
    unused = {"CLIENT_IMAGE"}  # for those who run the client's image beside
    assert used == set(DEFAULTS) - passed_on - unused


def test_every_setting_of_the_services_can_be_given() -> None:
    text = compose_settings.FILE.read_text()
    listed = set(re.findall(r"^ +- (SPLITFORMER_\w+)$", text, re.MULTILINE))
    assert {name for name in DEFAULTS if name.startswith("SPLITFORMER_")} <= listed


@pytest.mark.parametrize("service", ["encoder", "decoder"])
def test_traces_can_be_sent(service: str) -> None:
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in services(compose_settings.FILE)[service]["environment"]


@EACH
def test_no_port_is_open_to_other_machines_unless_tls_is_on(file: Path) -> None:
    for name, service in services(file).items():
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${BIND}:")), (name, port)
            assert "tls" in file.name or port.startswith("127.0.0.1:"), (name, port)


@EACH
def test_every_service_is_hardened_bounded_and_checked(file: Path) -> None:
    for name, service in services(file).items():
        if name in services(FOLDER / "compose.yaml") and file.name != "compose.yaml":
            continue  # an overlay's addition to one that is
        hardened = {"init": True, "read_only": True, "cap_drop": ["ALL"]}
        assert {key: service[key] for key in hardened} == hardened, name
        assert {"mem_limit", "pids_limit", "security_opt", "restart"} <= set(service), name
        ours = name in ("encoder", "decoder")
        assert ours or {"healthcheck", "user"} <= set(service), name


@pytest.mark.parametrize("name", ["PROMETHEUS", "GRAFANA", "HAPROXY", "BUILD", "BASE"])
def test_images_of_others_are_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-\w+)*", DEFAULTS[f"{name}_IMAGE"])


def test_the_dockerfile_and_env_name_the_same_images() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    for name in ("BUILD_IMAGE", "BASE_IMAGE"):
        assert f"ARG {name}={DEFAULTS[name]}\n" in text


@pytest.mark.parametrize("service", ["ENCODER", "DECODER"])
def test_the_grace_exceeds_notice_and_drain(service: str) -> None:
    seconds = {
        name: float(DEFAULTS[f"SPLITFORMER_{service}_{name}_SECONDS"])
        for name in ("NOTICE", "DRAIN")
    }
    assert sum(seconds.values()) < float(DEFAULTS["STOP_GRACE"].removesuffix("s"))
    longest = Settings().timeout  # of a client that says nothing else
    assert longest < seconds["DRAIN"]


@pytest.mark.parametrize("service", ["encoder", "decoder"])
def test_prometheus_finds_replicas_under_the_jobs_that_rules_expect(service: str) -> None:
    config = yaml.safe_load((FOLDER / "prometheus/compose.yml").read_text())
    (job,) = [
        each for each in config["scrape_configs"] if each["job_name"] == f"splitformer-{service}"
    ]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == [service]
    assert found["port"] == {"encoder": 9101, "decoder": 9102}[service]


def rendered(*overlays: str) -> dict[str, Any]:
    """What docker-compose 1.29 makes of the files, service by service."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    files = ("compose.yaml", *(f"compose.{each}.yaml" for each in overlays))
    command = ["docker-compose", *(word for file in files for word in ("-f", file)), "config"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


@pytest.mark.parametrize("overlays", [("override",), ("scale",), ("tls",), ("tls", "gpu")])
def test_the_files_go_together(overlays: tuple[str, ...]) -> None:
    found = rendered(*overlays)
    published = [str(port) for service in found.values() for port in service.get("ports", ())]
    for port in (DEFAULTS["ENCODER_PORT"], DEFAULTS["DECODER_PORT"]):
        assert sum(f":{port}:" in each for each in published) == 1, published


@pytest.mark.parametrize("service", ["encoder", "decoder"])
def test_with_gpus_a_service_is_built_for_cuda_and_given_a_device(service: str) -> None:
    found = rendered("override", "gpu")[service]
    assert found["image"].endswith("-cuda")
    assert found["build"]["args"]["SERVICE"] == service
    assert (FOLDER / f"requirements/{found['build']['args']['REQUIREMENTS']}.txt").is_file()
    assert found["environment"][f"SPLITFORMER_{service.upper()}_DEVICE"] == "cuda"
    (device,) = found["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}


@pytest.mark.parametrize("service", ["encoder", "decoder"])
def test_with_tls_callers_show_certificates_and_so_does_the_decoder(service: str) -> None:
    environment = rendered("tls")[service]["environment"]
    prefix = f"SPLITFORMER_{service.upper()}_"
    assert environment[f"{prefix}TLS_CERTIFICATE"] == f"/tls/{service}.pem"
    assert environment[f"{prefix}TLS_KEY"] == f"/tls/{service}.key"
    assert environment[f"{prefix}TLS_CLIENT_CA"] == "/tls/ca.pem"
    if service == "decoder":
        assert environment[f"{prefix}ENCODER_TLS"] == "true"
        assert environment[f"{prefix}ENCODER_CA"] == "/tls/ca.pem"

"""`up`: all is healthy, closed to the outside, translates, is watched, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import math
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import docker
import psutil
import pytest
from docker.models.containers import Container

from splitformer.errors import SplitformerError
from splitformer_client import connect
from tests.support.composed import PROJECT, Composed, assert_nothing_left, events
from tests.support.images import tag
from tests.support.prometheus import Prometheus
from tools import dashboards
from tools.panels import DASHBOARDS

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300, func_only=True)]
SERVICES = ("encoder", "decoder", "prometheus", "grafana")
IDLE_SECONDS = 30
"""Two scrapes; the clock of CPU time ticks a hundred times a second."""


@pytest.fixture(scope="module")
def composed(engine: docker.DockerClient, stand_ins: dict[str, str]) -> Iterator[Composed]:
    running = Composed(engine, stand_ins)
    try:
        done = running.verb("up", "--no-build")
        assert done.returncode == 0, done.stdout + done.stderr
        addresses = dict(line.split() for line in done.stdout.splitlines()[-4:])
        assert addresses == {
            name.lower(): f"127.0.0.1:{port}" for name, port in running.ports.items()
        }
        yield running
    finally:
        running.down()


@pytest.fixture(scope="module")
def asked(composed: Composed) -> Prometheus:
    return Prometheus(f"http://127.0.0.1:{composed.ports['PROMETHEUS']}")


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_little_and_is_bounded(composed: Composed, service: str) -> None:
    (container,) = composed.containers(service)
    host = container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Init"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    user = container.attrs["Config"]["User"]
    assert user
    assert not user.startswith("0")


def test_ports_are_published_on_the_loopback_interface_only(composed: Composed) -> None:
    bound = {
        (container.name, each["HostPort"]): each["HostIp"]
        for container in composed.containers()
        for ports in container.attrs["NetworkSettings"]["Ports"].values()
        for each in ports or ()
    }
    assert list(bound.values()) == ["127.0.0.1"] * 4, bound


def run_client(engine: docker.DockerClient, *arguments: str) -> str:
    """Run the client's image on the services' network."""
    output: bytes = engine.containers.run(
        tag("client"),
        list(arguments),
        network=PROJECT,
        remove=True,
        read_only=True,
        cap_drop=["ALL"],
        environment={
            "SPLITFORMER_ENCODER": "encoder:50051",
            "SPLITFORMER_DECODER": "decoder:50052",
        },
    )
    return output.decode()


def test_a_client_container_translates(composed: Composed, engine: docker.DockerClient) -> None:
    text = run_client(engine, "translate", "--to", "de,fr", "Open the file.")
    assert [line.partition("\t")[0] for line in text.splitlines()] == ["de", "fr"]
    assert text.count("SERVING") == 0
    assert run_client(engine, "health").count("SERVING") == 4


def test_the_native_kernels_were_built_into_the_images(composed: Composed) -> None:
    with connect(composed.encoder, composed.decoder) as client:
        assert client.encoder_info().precision == client.decoder_info().precision == "int8"


def test_every_rule_is_loaded_and_every_query_of_the_dashboards_answered(
    composed: Composed, asked: Prometheus
) -> None:
    asked.wait_for("up == 1", 2)
    rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
    assert sum(rule["type"] == "alerting" for rule in rules) > 20
    assert not [rule for rule in rules if rule["health"] == "err"]
    pending = list(all_queries())
    deadline = time.monotonic() + 150
    while pending:
        work(composed)
        pending = [query for query in pending if not answered(asked, query)]
        assert time.monotonic() < deadline, pending


def all_queries() -> Iterator[str]:
    for dashboard in DASHBOARDS:
        for panel in dashboards.dashboard_json(dashboard)["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "1m")
                yield query.replace("$instance", ".*")


def answered(asked: Prometheus, query: str) -> bool:
    found: list[Any] = asked.ask(query)
    return any(math.isfinite(float(series["value"][1])) for series in found)


def work(composed: Composed) -> None:
    """Do a little of everything that shows in the panels."""
    with connect(composed.encoder, composed.decoder) as client:
        client.translate("Open the file.", to=("de", "fr"), max_new_tokens=8)
        client.translate("Copy the file file_10_of_20.txt.", to="de", draft="copy")
        memory = client.encode("Save all changes.", delivery="inline")
        with client.open_session(memory, language="de") as session:
            list(session.generate(max_new_tokens=4))
            session.fork(keep_tokens=2).close()
        with contextlib.suppress(SplitformerError):
            client.translate("Open the file.", to="tlh")


def test_grafana_would_find_its_dashboards(composed: Composed) -> None:
    url = f"http://127.0.0.1:{composed.ports['GRAFANA']}/api/dashboards"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert len(json.load(answer)) == len(DASHBOARDS)


def cpu_seconds(container: Container) -> float:
    """What a container's processes have used; those of health checks come and go."""
    rows = container.top(ps_args="-eo pid,args")["Processes"]
    (pid,) = (int(pid) for pid, command in rows if command.startswith("python -m "))
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_idle_services_use_next_to_no_cpu(composed: Composed) -> None:
    watched = [*composed.containers("encoder"), *composed.containers("decoder")]
    before = [cpu_seconds(each) for each in watched]
    time.sleep(IDLE_SECONDS)
    used = sum(cpu_seconds(each) for each in watched) - sum(before)
    print(f"both services, idle: {used / IDLE_SECONDS:.2%} of a core")  # noqa: T201
    assert (
        used / IDLE_SECONDS < 0.02
    )  # scraped every 15 seconds; the figure is in docs/containers.md


def test_a_port_in_use_is_told(composed: Composed) -> None:
    other = Composed(composed.engine, composed.stand_ins, extra={"COMPOSE_PROJECT_NAME": "other"})
    other.ports["ENCODER"] = composed.ports["ENCODER"]
    other.extra["NETWORK"] = "other"
    try:
        done = other.run("up", "-d", "--no-build", "encoder")
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert str(composed.ports["ENCODER"]) in said
        assert "already" in said
    finally:
        other.down()


def test_down_drains_and_leaves_nothing_behind(composed: Composed) -> None:
    services = [*composed.containers("encoder"), *composed.containers("decoder")]
    assert composed.run("stop").returncode == 0
    for each in services:
        each.reload()
        assert each.attrs["State"]["ExitCode"] == 0
        assert '"stopped"' in events(each)[-1]
    composed.down()
    assert_nothing_left(composed)

"""The Kubernetes manifests: valid, at one with themselves, and at one with the services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import splitformer
from decoder_service.allow_list import AllowList
from decoder_service.settings import DecoderSettings
from encoder_service.settings import EncoderSettings
from splitformer.serving.configuration import parse_size
from tests.support.manifests import (
    KINDS,
    NAMESPACE,
    NEEDED,
    OVERLAYS,
    Rendered,
    admits,
    chosen,
)

pytestmark = NEEDED
VERSIONS = ("1.27", "1.34")
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
CLIENT = {"splitformer-client": "true"}


@pytest.fixture(scope="module", params=("base", *(f"overlays/{each}" for each in OVERLAYS)))
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(request.param)


@pytest.fixture(scope="module")
def watched() -> Rendered:
    return Rendered("overlays/cpu")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_of_kubernetes_own_has_its_schema(rendered: Rendered, version: str) -> None:
    foreign = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1"}
    ours = [each for each in rendered.all if each["apiVersion"] not in foreign]
    assert len(ours) >= 11
    for each in ours:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_misspelt_field_would_be_found(rendered: Rendered) -> None:
    broken = rendered.named("Service", "encoder")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**broken, "spec": {**broken["spec"], "clusterIp": "None"}}, VERSIONS[0], strict=True
        )


def test_every_object_has_one_home_and_one_label(rendered: Rendered) -> None:
    for each in rendered.all:
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == NAMESPACE
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.all]
    assert len(names) == len(set(names))


def test_selectors_choose_their_service_and_no_other(rendered: Rendered) -> None:
    encoder, decoder = rendered.workloads()
    selectors = [
        (each["metadata"]["name"], each["spec"].get("podSelector") or each["spec"]["selector"])
        for kind in ("PodDisruptionBudget", "NetworkPolicy", "Deployment", "StatefulSet")
        for each in rendered.of_kind(kind)
    ]
    selectors += [
        (each["metadata"]["name"], {"matchLabels": each["spec"]["selector"]})
        for each in rendered.of_kind("Service")
    ]
    assert len(selectors) == 10
    for name, selector in selectors:
        assert chosen(selector, encoder.labels) == name.startswith("encoder")
        assert chosen(selector, decoder.labels) == name.startswith("decoder")


def test_ports_are_those_that_the_services_listen_on(rendered: Rendered) -> None:
    for workload in rendered.workloads():
        settings = workload.settings
        expected = {"grpc": settings.port, "metrics": settings.metrics_port}
        assert workload.ports == expected
        for service in rendered.of_kind("Service"):
            if chosen({"matchLabels": service["spec"]["selector"]}, workload.labels):
                for port in service["spec"]["ports"]:
                    assert port["port"] == expected[port["targetPort"]]


def test_settings_are_read_and_every_variable_is_one(rendered: Rendered) -> None:
    for workload in rendered.workloads():
        settings = workload.settings
        assert settings.host == "0.0.0.0"
        assert settings.threads == int(workload.container["resources"]["requests"]["cpu"])
        names = set(workload.environment) - {"NAMESPACE"}
        fields = {f"{settings.prefix}{each.upper()}" for each in settings.describe()}
        assert names <= fields
        assert workload.pod["enableServiceLinks"] is False


def test_every_replica_has_a_name_that_dns_knows_while_it_drains(rendered: Rendered) -> None:
    encoder, decoder = rendered.workloads()
    encoders, decoders = encoder.settings, decoder.settings
    assert isinstance(encoders, EncoderSettings)
    assert isinstance(decoders, DecoderSettings)
    memory_at = encoder.reached_as(encoders.advertise)
    assert AllowList(decoders.encoders).allows(memory_at)
    for workload, address in (
        (encoder, memory_at),
        (decoder, decoder.reached_as(decoders.endpoint)),
    ):
        _, service, rest = address.split(".", 2)
        assert rest == f"{NAMESPACE}.svc.cluster.local:{workload.ports['grpc']}"
        found = rendered.named("Service", service)["spec"]
        assert found["clusterIP"] == "None"
        assert found["publishNotReadyAddresses"] is True
        assert chosen({"matchLabels": found["selector"]}, workload.labels)
        for_clients = rendered.named("Service", workload.service)["spec"]
        assert "publishNotReadyAddresses" not in for_clients
    assert decoder.body["spec"]["serviceName"] == "decoder-pods"


def test_a_pod_has_time_to_drain_and_room_for_its_budget(rendered: Rendered) -> None:
    for workload in rendered.workloads():
        settings, container = workload.settings, workload.container
        (command, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        spent = int(seconds) + settings.notice_seconds + settings.drain_seconds
        assert workload.pod["terminationGracePeriodSeconds"] > spent
        limit = parse_size(container["resources"]["limits"]["memory"] + "B")
        assert limit >= settings.memory_bytes + 256 * 2**20
        (tmp,) = (each for each in container["volumeMounts"] if each["name"] == "tmp")
        assert tmp["mountPath"] == "/tmp"


def test_pods_may_do_nothing_that_they_need_not(rendered: Rendered) -> None:
    for workload in rendered.workloads():
        assert workload.pod["securityContext"]["runAsNonRoot"] is True
        assert workload.pod["automountServiceAccountToken"] is False
        context = workload.container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_images_are_of_this_version(rendered: Rendered) -> None:
    for workload in rendered.workloads():
        name, _, tag = workload.container["image"].partition(":")
        assert name == f"splitformer-{workload.service}"
        assert tag.removesuffix("-cuda") == splitformer.__version__


def test_the_network_lets_in_who_must_come_and_nobody_else(rendered: Rendered) -> None:
    encoder, decoder = rendered.workloads()
    for workload in (encoder, decoder):
        policy = rendered.named("NetworkPolicy", workload.service)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert admits(policy, CLIENT, False, "grpc")
        assert admits(policy, PROMETHEUS, False, "metrics")
        assert not admits(policy, PROMETHEUS, False, "grpc")
        assert not admits(policy, {}, True, "grpc")
    assert admits(rendered.named("NetworkPolicy", "encoder"), decoder.labels, True, "grpc")
    assert not admits(rendered.named("NetworkPolicy", "decoder"), encoder.labels, True, "grpc")
    fetch, names = rendered.named("NetworkPolicy", "decoder")["spec"]["egress"]
    assert chosen(fetch["to"][0]["podSelector"], encoder.labels)
    assert fetch["ports"] == [{"port": "grpc"}]
    assert {each["port"] for each in names["ports"]} == {53}


@pytest.mark.parametrize("service", KINDS)
def test_probes_ask_for_what_the_service_answers(
    watched: Rendered, tiny_model: Path, service: str
) -> None:
    """The service runs with the manifest's own variables, but for ports and host."""
    workload = watched.workload(service)
    probes = workload.grpc_probes
    assert [each["port"] for each in probes] == [workload.ports["grpc"]] * 3
    here = ["--port=0", "--metrics-port=0", "--host=127.0.0.1", f"--model={tiny_model}"]
    process = subprocess.Popen(
        [sys.executable, "-m", f"{service}_service", *here],
        env={**os.environ, **workload.environment, "PYTHONPATH": ":".join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        port = serving_port(process.stderr)
        assert [serves(port, each.get("service", "")) for each in probes] == [True] * 3
    finally:
        process.terminate()
        process.communicate(timeout=60)


def serves(port: int, service: str) -> bool:
    """Ask as a kubelet does."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service=service)
        answer = stub.Check(asked, timeout=10)  # type: ignore[attr-defined]
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def serving_port(lines: Any) -> int:
    """Read a service's log until it serves."""
    read = []
    for line in lines:
        read.append(line)
        if '"event": "serving"' in line:
            return int(json.loads(line)["port"])
    pytest.fail("".join(read))

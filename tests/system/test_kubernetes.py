"""The Kubernetes manifests: valid, at one with themselves, and at one with the services."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

import splitformer
from decoder_service.allow_list import AllowList
from decoder_service.settings import DecoderSettings
from encoder_service.settings import EncoderSettings
from splitformer.serving.settings import Settings, parse_size
from tests.support.certificates import Authority
from tests.support.manifests import (
    FOLDER,
    NAMESPACE,
    NEEDED,
    OVERLAYS,
    Rendered,
    Workload,
    admits,
    chosen,
)
from tests.support.markdown import ROOT, blocks

pytestmark = NEEDED
KINDS: dict[str, type[Settings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}
VERSIONS = ("1.27", "1.34")
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
CLIENT = {"splitformer-client": "true"}


@pytest.fixture(scope="module", params=("base", *(f"overlays/{each}" for each in OVERLAYS)))
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(request.param)


@pytest.fixture(scope="module")
def watched() -> Rendered:
    return Rendered("overlays/cpu")


def grpc_probes(workload: Workload) -> list[dict[str, Any]]:
    probes = (workload.container[f"{each}Probe"] for each in ("startup", "readiness", "liveness"))
    return [each["grpc"] for each in probes if "grpc" in each]


def settings_of(workload: Workload) -> Settings:
    """Read the variables as the service would, without the files that a secret brings."""
    prefix = KINDS[workload.service].prefix
    given = {
        name: text
        for name, text in workload.environment.items()
        if name.startswith(prefix) and "_TLS" not in name and not name.endswith("_CA")
    }
    return KINDS[workload.service].read([], given)


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
        settings = settings_of(workload)
        expected = {"grpc": settings.port, "metrics": settings.metrics_port}
        assert workload.ports == expected
        for service in rendered.of_kind("Service"):
            if chosen({"matchLabels": service["spec"]["selector"]}, workload.labels):
                for port in service["spec"]["ports"]:
                    assert port["port"] == expected[port["targetPort"]]


def test_settings_are_read_and_every_variable_is_one(rendered: Rendered) -> None:
    for workload in rendered.workloads():
        settings = settings_of(workload)
        assert settings.host == "0.0.0.0"
        assert settings.threads == int(workload.container["resources"]["requests"]["cpu"])
        names = set(workload.environment) - {"NAMESPACE"}
        fields = {f"{settings.prefix}{each.upper()}" for each in settings.describe()}
        assert names <= fields
        assert workload.pod["enableServiceLinks"] is False


def test_every_replica_has_a_name_that_dns_knows_while_it_drains(rendered: Rendered) -> None:
    encoder, decoder = rendered.workloads()
    encoders, decoders = settings_of(encoder), settings_of(decoder)
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
        settings, container = settings_of(workload), workload.container
        (command, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        spent = int(seconds) + settings.notice_seconds + settings.drain_seconds
        assert workload.pod["terminationGracePeriodSeconds"] > spent
        limit = parse_size(container["resources"]["limits"]["memory"] + "B")
        assert limit >= settings.memory_bytes + 512 * 2**20
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
    probes = grpc_probes(workload)
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


def test_autoscalers_ask_for_gauges_that_there_are(watched: Rendered) -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    adapter = (FOLDER / "components/monitoring/adapter-values.yaml").read_text(encoding="utf-8")
    (rule,) = yaml.safe_load(adapter)["rules"]["custom"]
    asked = {}
    for workload in watched.workloads():
        spec = watched.named("HorizontalPodAutoscaler", workload.service)["spec"]
        target = spec["scaleTargetRef"]
        assert watched.named(target["kind"], target["name"]) is workload.body
        assert "replicas" not in workload.body["spec"]
        for metric in spec["metrics"]:
            pods = metric["pods"]
            asked[pods["metric"]["name"]] = int(pods["target"]["averageValue"])
    assert len(asked) == 3
    for name in asked:
        assert f"| `{name}` | gauge |" in page
        assert name.removeprefix("splitformer_") in rule["seriesQuery"]
    decoders = settings_of(watched.workload("decoder"))
    assert isinstance(decoders, DecoderSettings)
    assert asked["splitformer_decoder_running"] == decoders.max_batch * 3 // 4


def test_keda_scales_by_the_same_gauges(watched: Rendered) -> None:
    rendered = Rendered("overlays/keda")
    assert rendered.of_kind("HorizontalPodAutoscaler") == []
    for workload in rendered.workloads():
        ours = rendered.named("ScaledObject", workload.service)["spec"]
        theirs = watched.named("HorizontalPodAutoscaler", workload.service)["spec"]
        assert ours["scaleTargetRef"] == theirs["scaleTargetRef"]
        by_name = {
            each["metadata"]["query"].partition("{")[0].removeprefix("sum("): each["metadata"][
                "threshold"
            ]
            for each in ours["triggers"]
        }
        assert by_name == {
            each["pods"]["metric"]["name"]: each["pods"]["target"]["averageValue"]
            for each in theirs["metrics"]
        }


def test_prometheus_finds_every_replica_under_the_jobs_that_rules_know(watched: Rendered) -> None:
    (monitor,) = watched.of_kind("ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    found = {}
    for service in watched.of_kind("Service"):
        labels = service["metadata"]["labels"]
        ports = [each["name"] for each in service["spec"]["ports"]]
        if chosen(monitor["spec"]["selector"], labels) and endpoint["port"] in ports:
            found[service["metadata"]["name"]] = labels[monitor["spec"]["jobLabel"]]
    assert found == {
        "encoder-pods": "splitformer-encoder",
        "decoder-pods": "splitformer-decoder",
    }


def test_rules_and_dashboards_are_all_there(watched: Rendered) -> None:
    (rule,) = watched.of_kind("PrometheusRule")
    files = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    expected = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert rule["spec"]["groups"] == expected
    dashboards = watched.named("ConfigMap", "splitformer-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    there = {file.name: file.read_text() for file in ROOT.glob("deploy/grafana/dashboards/*.json")}
    assert dashboards["data"] == there
    source = watched.named("ConfigMap", "splitformer-datasource")["data"]["datasource.yaml"]
    (given,) = yaml.safe_load(source)["datasources"]
    assert all(f'"uid": "{given["uid"]}"' in each for each in there.values())


def test_tls_stands_on_every_hop(tmp_path: Path) -> None:
    rendered = Rendered("overlays/tls")
    authority = Authority(tmp_path)
    pair = authority.pair("server")
    files = {
        "/tls/tls.crt": str(pair.certificate),
        "/tls/tls.key": str(pair.key),
        "/tls/ca.crt": str(authority.certificate),
    }
    for workload in rendered.workloads():
        assert grpc_probes(workload) == []
        for probe in ("startup", "readiness", "liveness"):
            assert workload.container[f"{probe}Probe"]["exec"] == {"command": ["healthy"]}
        environment = {
            name: files.get(text, text)
            for name, text in workload.environment.items()
            if name != "NAMESPACE"
        }
        settings = KINDS[workload.service].read([], environment)
        assert settings.tls_files is not None
        assert settings.tls_client_ca == str(authority.certificate)
        (volume,) = (each for each in workload.pod["volumes"] if each["name"] == "tls")
        assert volume["secret"]["secretName"] == "splitformer-tls"
    decoders = KINDS["decoder"].read([], environment)
    assert isinstance(decoders, DecoderSettings)
    assert (decoders.encoder_tls, decoders.encoder_ca) == (True, str(authority.certificate))


def test_the_images_have_the_command_that_probes_run_under_tls() -> None:
    assert 'CMD ["healthy"]' in (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")


def test_the_certificate_is_for_every_name_that_callers_use() -> None:
    rendered = Rendered("overlays/tls")
    text = (FOLDER / "components/tls/certificate.yaml").read_text(encoding="utf-8")
    spec = yaml.safe_load(text)["spec"]
    names = AllowList([f"{name}:*" for name in spec["dnsNames"]])
    encoder, decoder = rendered.workloads()
    encoders, decoders = settings_of(encoder), settings_of(decoder)
    assert isinstance(encoders, EncoderSettings)
    assert isinstance(decoders, DecoderSettings)
    assert names.allows(encoder.reached_as(encoders.advertise))
    assert names.allows(decoder.reached_as(decoders.endpoint))
    for service in ("encoder", "decoder"):
        assert names.allows(f"{service}.{NAMESPACE}.svc.cluster.local:1")
    assert spec["usages"] == ["server auth", "client auth"]
    assert spec["secretName"] == "splitformer-tls"


def test_the_overlay_of_the_page_renders(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (block,) = blocks(ROOT / "docs/kubernetes.md", "yaml")
    own = tmp_path / "deploy/kubernetes/overlays/own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(block.text, encoding="utf-8")
    for workload in Rendered("overlays/own", tmp_path / "deploy/kubernetes").workloads():
        assert workload.container["image"].startswith("registry.example.com/splitformer-")


def test_gpus_are_asked_for_where_they_are_used() -> None:
    rendered = Rendered("overlays/gpu")
    decoder, encoder = rendered.workload("decoder"), rendered.workload("encoder")
    assert settings_of(decoder).describe()["device"] == "cuda"
    assert decoder.container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert decoder.container["image"].endswith("-cuda")
    assert settings_of(encoder).describe()["device"] == "cpu"
    assert "nvidia.com/gpu" not in encoder.container["resources"]["limits"]

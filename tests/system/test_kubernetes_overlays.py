"""The overlays of the Kubernetes manifests: scaling, monitoring, TLS and GPUs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from decoder_service.allow_list import AllowList
from decoder_service.settings import DecoderSettings
from encoder_service.settings import EncoderSettings
from tests.support.certificates import Authority
from tests.support.manifests import FOLDER, KINDS, NAMESPACE, NEEDED, Rendered, chosen
from tests.support.markdown import ROOT, blocks

pytestmark = NEEDED


@pytest.fixture(scope="module")
def watched() -> Rendered:
    return Rendered("overlays/cpu")


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
    decoders = watched.workload("decoder").settings
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
        assert workload.grpc_probes == []
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
    encoders, decoders = encoder.settings, decoder.settings
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
    assert decoder.settings.describe()["device"] == "cuda"
    assert decoder.container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert decoder.container["image"].endswith("-cuda")
    assert encoder.settings.describe()["device"] == "cpu"
    assert "nvidia.com/gpu" not in encoder.container["resources"]["limits"]

"""Kubernetes manifests as Kustomize renders them, and what a cluster would make of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from decoder_service.settings import DecoderSettings
from encoder_service.settings import EncoderSettings
from splitformer.serving.settings import Settings
from tests.support.markdown import ROOT

KINDS: dict[str, type[Settings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}
"""The services and their settings."""

FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = ("cpu", "gpu", "tls", "keda")
NEEDED = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl, whose kustomize renders the manifests"
)
"""Mark of what cannot be tested without it."""

NAMESPACE = "splitformer"
_ADDRESS = "10-1-2-3"
_REFERENCE = re.compile(r"\$\((\w+)\)")


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet of one service.

    Attributes:
        body: The object.
        service: "encoder" or "decoder".
    """

    body: dict[str, Any]
    service: str

    @property
    def pod(self) -> dict[str, Any]:
        """The pods' specification."""
        return dict(self.body["spec"]["template"]["spec"])

    @property
    def labels(self) -> dict[str, str]:
        """The pods' labels."""
        return dict(self.body["spec"]["template"]["metadata"]["labels"])

    @property
    def container(self) -> dict[str, Any]:
        """The one container."""
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def ports(self) -> dict[str, int]:
        """Ports of the container by name."""
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    @property
    def environment(self) -> dict[str, str]:
        """The variables, filled in as a kubelet would: fields, resources, references."""
        values: dict[str, str] = {}
        for each in self.container["env"]:
            text = each["value"] if "value" in each else self._source(each["valueFrom"])
            values[each["name"]] = _REFERENCE.sub(lambda match: values[match[1]], text)
        return values

    @property
    def settings(self) -> Settings:
        """What the service reads from the variables, but for the files that a secret brings."""
        kind = KINDS[self.service]
        given = {
            name: text
            for name, text in self.environment.items()
            if name.startswith(kind.prefix) and "_TLS" not in name and not name.endswith("_CA")
        }
        return kind.read([], given)

    @property
    def grpc_probes(self) -> list[dict[str, Any]]:
        """What the kubelet asks over gRPC."""
        probes = (self.container[f"{each}Probe"] for each in ("startup", "readiness", "liveness"))
        return [each["grpc"] for each in probes if "grpc" in each]

    def _source(self, source: Mapping[str, Any]) -> str:
        if source == {"fieldRef": {"fieldPath": "metadata.namespace"}}:
            return NAMESPACE
        kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
        return str(self.container["resources"][kind][name])

    def reached_as(self, template: str) -> str:
        """An address of ours with the name of one pod put in, as the cluster's DNS gives it."""
        host = f"{self.body['metadata']['name']}-0"
        return template.replace("{hostname}", host).replace("{address}", _ADDRESS)


class Rendered:
    """What `kubectl kustomize` makes of a folder.

    Args:
        folder: Under `top`.
        top: Where the manifests lie.
    """

    def __init__(self, folder: str, top: Path = FOLDER) -> None:
        command = ["kubectl", "kustomize", str(top / folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        self.all: list[dict[str, Any]] = list(yaml.safe_load_all(done.stdout))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Every object of one kind."""
        return [each for each in self.all if each["kind"] == kind]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The one object of this kind and name."""
        (found,) = (each for each in self.of_kind(kind) if each["metadata"]["name"] == name)
        return found

    def workloads(self) -> Iterator[Workload]:
        """Encoder and decoder."""
        yield Workload(self.named("Deployment", "encoder"), "encoder")
        yield Workload(self.named("StatefulSet", "decoder"), "decoder")

    def workload(self, service: str) -> Workload:
        """One of the two."""
        return next(each for each in self.workloads() if each.service == service)


def chosen(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """True if a label selector takes these labels; expressions are of the kind `In` alone."""
    exact = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(key) == value for key, value in exact.items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def admits(
    policy: Mapping[str, Any], caller: Mapping[str, str], same_namespace: bool, port: str
) -> bool:
    """True if a policy's ingress lets a pod with these labels call a named port."""
    for rule in policy["spec"]["ingress"]:
        if {"port": port} not in rule["ports"]:
            continue
        for peer in rule["from"]:
            here = same_namespace or peer.get("namespaceSelector") == {}
            if here and chosen(peer["podSelector"], caller):
                return True
    return False

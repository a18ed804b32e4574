"""What is in the images, and what a container says that cannot run."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from splitformer import __version__
from splitformer.serving.limits import PROCESS_BYTES
from tests.support.composed import events, folder_of, healthy, within
from tests.support.images import WITH_TORCH, build, tag

pytestmark = [pytest.mark.containers, pytest.mark.timeout(120, func_only=True)]
MIB = 2**20
SERVICES = pytest.mark.parametrize("service", ["encoder", "decoder"])


def listed(engine: docker.DockerClient, service: str) -> set[str]:
    """Names in an image's folders of packages."""
    output: bytes = engine.containers.run(
        tag(service),
        ["-c", "ls /opt/app /opt/app/splitformer /opt/splitformer/lib/python3*/site-packages"],
        entrypoint="sh",
        remove=True,
    )
    return set(output.decode().split())


@SERVICES
def test_a_service_has_what_it_needs_and_not_the_other_service(
    engine: docker.DockerClient, service: str
) -> None:
    names = listed(engine, service)
    assert {"tokenizers", "splitformer_models", f"{service}_service", "native"} <= names
    assert ({"encoder_service", "decoder_service"} - {f"{service}_service"}).isdisjoint(names)
    assert not {"torch", "pip", "pytest", "transformers", "ctranslate2"} & names


def test_the_client_has_neither_torch_nor_services_nor_weights(engine: docker.DockerClient) -> None:
    names = listed(engine, "client")
    assert {"splitformer_client", "grpc", "errors.py", "wire.py"} <= names
    unwanted = {"torch", "encoder_service", "decoder_service", "splitformer_models", "native"}
    assert not unwanted & names


@pytest.mark.parametrize("service", ["encoder", "decoder", "client"])
def test_an_image_says_what_it_is_and_runs_as_nobody(
    engine: docker.DockerClient, service: str
) -> None:
    config = engine.images.get(tag(service)).attrs["Config"]
    labels = {k.rpartition(".")[2]: v for k, v in config["Labels"].items() if "opencontainers" in k}
    assert labels["title"] == f"splitformer-{service}"
    assert labels["version"] == __version__
    assert labels["revision"] == "test"
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "healthy"]


def sizes(engine: docker.DockerClient, base: str, *images: str) -> list[float]:
    """MiB of images above their base."""
    below, *whole = (engine.images.get(each).attrs["Size"] / MIB for each in (base, *images))
    return [size - below for size in whole]


def test_images_are_no_larger_than_told(
    engine: docker.DockerClient, stand_ins: dict[str, str]
) -> None:
    names = ("encoder", "decoder", "client")
    above = dict(zip(names, sizes(engine, stand_ins["base"], *map(tag, names)), strict=True))
    print({name: f"{size:.0f} MiB above the base" for name, size in above.items()})  # noqa: T201
    assert above["client"] < 150
    assert max(above.values()) < 250
    layers = [engine.images.get(tag(each)).attrs["RootFS"]["Layers"] for each in above]
    assert layers[0][:2] == layers[1][:2]  # base and dependencies are stored once for both


@pytest.mark.timeout(1200, func_only=True)  # torch is large
def test_an_image_built_with_torch_computes_with_it(
    engine: docker.DockerClient, stand_ins: dict[str, str]
) -> None:
    build(engine, stand_ins, folder_of("wheels"), WITH_TORCH)
    image = tag("decoder", "cpu")
    above = sizes(engine, stand_ins["base"], image)[0]
    print(f"with torch: {above:.0f} MiB above the base")  # noqa: T201
    kernels = {"SPLITFORMER_DECODER_KERNELS": "torch"}
    container = engine.containers.run(image, detach=True, environment=kernels)
    try:
        within(60, lambda: healthy(container), "the decoder is not healthy")
        assert any("torch serves, in fp32 and slower" in line for line in events(container))
    finally:
        container.remove(force=True)


def seconds(text: str) -> float:
    """A time of Docker's, which has more digits than Python reads."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z?$", r"\1+00:00", text)).timestamp()


def used(container: Container) -> int:
    """Bytes as `docker stats` has them: pages of files that were read once can go at any time.

    They count for the container that was the first to read them, 115 MiB of the image's.
    """
    memory = container.stats(stream=False)["memory_stats"]
    pages = memory["stats"]
    read_once = pages.get("total_inactive_file", pages.get("inactive_file"))  # cgroups 1 and 2
    return int(memory["usage"]) - int(read_once)


@SERVICES
def test_a_service_is_healthy_soon_after_its_start(
    engine: docker.DockerClient, service: str
) -> None:
    container = engine.containers.run(tag(service), detach=True)
    try:
        within(60, lambda: healthy(container), f"{service} is not healthy")
        assert used(container) < PROCESS_BYTES
        serving = next(json.loads(e) for e in events(container) if '"event": "serving"' in e)
        state = container.attrs["State"]
        checked = next(each for each in state["Health"]["Log"] if each["ExitCode"] == 0)
        took = [
            at - seconds(state["StartedAt"])
            for at in (datetime.fromisoformat(serving["time"]).timestamp(), seconds(checked["End"]))
        ]
        print(f"{service}: serving {took[0]:.1f} s after its start, healthy {took[1]:.1f} s")  # noqa: T201
        assert (
            max(took) < 30
        )  # of a busy machine; docs/containers.md has the figures of an idle one
    finally:
        container.remove(force=True)


BAD = [
    ({"SPEED": "9"}, {}, "SPLITFORMER_{}_SPEED: no such setting; known: "),
    ({"THREADS": "many"}, {}, "SPLITFORMER_{}_THREADS: must be a valid int, got 'many'"),
    ({"MEMORY_BYTES": "-1"}, {}, "SPLITFORMER_{}_MEMORY_BYTES: must be a valid int, got '-1'"),
    ({"MODEL": "/models/nothing"}, {}, "model: '/models/nothing' is no usable model: "),
    ({"PORT": "80"}, {"sysctls": {"net.ipv4.ip_unprivileged_port_start": 1024}},
     "port: cannot listen on 127.0.0.1:80"),
    ({}, {"mem_limit": "64m"}, "memory: must fit into this container's limit of 64 MiB, got the "),
    ({}, {"mem_limit": "512m"}, "memory: must fit into this container's limit of 512 MiB, got "
     "memory_bytes (1024 MiB) + the process (128 MiB); raise the limit to 1152 MiB, or lower"),
    ({"KERNELS": "torch"}, {}, "kernels: torch is to compute (settings ask for torch), which is "
     "not installed here: `pip install splitformer[torch]`, or an image built with torch"),
    ({"DEVICE": "cuda"}, {}, "device: 'cuda' needs torch, which is not installed here"),
    ({"TLS_CERTIFICATE": "/tls/server.pem", "TLS_KEY": "/tls/server.key"}, {},
     "tls_certificate: '/tls/server.pem' cannot be read: No such file or directory"),
    ({"TLS_CERTIFICATE": "/tls/server.pem"}, {}, "tls_key: "),
]  # fmt: skip


@SERVICES
@pytest.mark.parametrize(("variables", "options", "line"), BAD, ids=lambda value: str(value)[:30])
def test_what_cannot_run_says_why_in_one_line_and_stops(
    engine: docker.DockerClient,
    service: str,
    variables: dict[str, str],
    options: dict[str, object],
    line: str,
) -> None:
    prefix = f"SPLITFORMER_{service.upper()}_"
    container = engine.containers.run(
        tag(service),
        detach=True,
        environment={prefix + name: value for name, value in variables.items()},
        **options,
    )
    try:
        assert container.wait(timeout=60)["StatusCode"] == 2
        said = [each for each in container.logs().decode().splitlines() if each[:1] != "{"]
        assert len(said) == 1, said
        assert line.format(service.upper()) in said[0]
    finally:
        container.remove(force=True)


def test_an_unreadable_model_is_told(engine: docker.DockerClient, tmp_path: Path) -> None:
    model = tmp_path / "secret"
    model.mkdir(mode=0o700)
    container = engine.containers.run(
        tag("encoder"),
        detach=True,
        environment={"SPLITFORMER_ENCODER_MODEL": "/models/secret"},
        volumes={str(model): {"bind": "/models/secret", "mode": "ro"}},
    )
    try:
        assert container.wait(timeout=60)["StatusCode"] == 2
        (said,) = [each for each in container.logs().decode().splitlines() if each[:1] != "{"]
        assert "model: '/models/secret' is no usable model: " in said
    finally:
        container.remove(force=True)

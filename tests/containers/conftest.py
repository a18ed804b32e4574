"""An engine with our images on it; where there is none, every test here is skipped and says so."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from docker.errors import DockerException

from tests.support.composed import folder_of
from tests.support.images import build
from tests.support.stand_ins import make_all


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The Docker engine of this machine."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def stand_ins(engine: docker.DockerClient) -> dict[str, str]:
    """Images in place of those that cannot be pulled here."""
    return make_all(engine)


@pytest.fixture(scope="session", autouse=True)
def images(engine: docker.DockerClient, stand_ins: dict[str, str]) -> None:
    """The three images of ours."""
    build(engine, stand_ins, folder_of("wheels"))

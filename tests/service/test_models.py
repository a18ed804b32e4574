"""Several models in one pair of services: loaded and unloaded at run time, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from decoder_service.service import DecoderService
from encoder_service.service import EncoderService
from splitformer.errors import FailedPreconditionError, NotFoundError
from splitformer.v1 import model_admin_service_pb2 as pb
from splitformer.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from splitformer_client import Client, connect
from splitformer_client.main import app
from tests.support.checkpoints import make_checkpoint
from tests.support.reference import Reference
from tests.support.rpc import eventually, refused
from tests.support.servers import Running, ServerThread

TEXT = "Open the file."
SECONDS = 30.0
Code = grpc.StatusCode


class Admin:
    """Calls to one service's administration."""

    def __init__(self, running: Running[Any]) -> None:
        self.channel = grpc.insecure_channel(running.admin)
        self._stub = ModelAdminServiceStub(self.channel)

    def load(self, name: str) -> Any:
        return self._stub.LoadModel(pb.LoadModelRequest(name=name), timeout=SECONDS).model

    def unload(self, name: str, timeout: float = SECONDS) -> int:
        request = pb.UnloadModelRequest(name=name)
        return int(self._stub.UnloadModel(request, timeout=timeout).freed_bytes)

    def names(self) -> tuple[list[str], list[str]]:
        answer = self._stub.ListModels(pb.ListModelsRequest(), timeout=SECONDS)
        return [model.name for model in answer.loaded], list(answer.available)


@dataclass(frozen=True)
class World:
    """Both services, and how their models are administered."""

    root: Path
    encoder: Running[EncoderService]
    decoder: Running[DecoderService]
    admins: tuple[Admin, Admin]

    def client(self, model: str = "") -> Client:
        return connect(self.encoder.address, self.decoder.address, model=model, timeout=SECONDS)

    def load(self, *names: str) -> None:
        for admin in self.admins:
            for name in names:
                admin.load(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that may be loaded, and folders that are none."""
    root = tmp_path_factory.mktemp("models")
    make_checkpoint(root / "one", seed=5)
    make_checkpoint(root / "two", seed=6)
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text('{"model_type": "bert"}')
    (root / "empty").mkdir()
    outside = make_checkpoint(tmp_path_factory.mktemp("elsewhere") / "outside", seed=7)
    (root / "link").symlink_to(outside)
    return root


@pytest.fixture
def world(root: Path, tiny_model: Path, servers: ServerThread) -> Iterator[World]:
    settings = {"models": str(root), "admin": "127.0.0.1:0"}
    encoder = servers.start_encoder(tiny_model, **settings)
    decoder = servers.start_decoder(tiny_model, encoder, **settings)
    admins = Admin(encoder), Admin(decoder)
    yield World(root, encoder, decoder, admins)
    for admin in admins:
        admin.channel.close()


def text_of(client: Client) -> str:
    (translation,) = client.translate(TEXT, to=["de"], break_loops=False)
    return str(translation.text)


def expected(folder: Path) -> str:
    return "".join(token.text for token in Reference(folder).target(TEXT, "de").produced)


def test_each_request_gets_the_model_it_names(world: World, tiny_model: Path) -> None:
    world.load("one", "two")
    wanted = {"": tiny_model, "one": world.root / "one", "two": world.root / "two"}
    texts: dict[str, list[str]] = {name: [] for name in wanted}

    def ask(name: str) -> None:
        with world.client(name) as client:
            texts[name] += [text_of(client) for _ in range(3)]
            assert client.encoder_info().name == client.decoder_info().name == (name or "tiny-0")

    threads = [threading.Thread(target=ask, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, folder in wanted.items():
        assert [text.strip() for text in texts[name]] == [expected(folder).strip()] * 3
    assert len({text[0] for text in texts.values()}) > 1, "models that differ say different things"


def test_what_is_loaded_and_what_could_be(world: World) -> None:
    for admin in world.admins:
        assert admin.names() == (["tiny-0"], ["broken", "link", "one", "two"])
        info = admin.load("one")
        assert (info.name, info.family, info.weight_bytes > 0) == ("one", "splitformer", True)
        assert admin.names() == (["tiny-0", "one"], ["broken", "link", "two"])
        assert admin.unload("one") == info.weight_bytes
        assert admin.names() == (["tiny-0"], ["broken", "link", "one", "two"])


def test_callers_of_the_service_cannot_administer_its_models(world: World) -> None:
    addresses = (world.encoder.address, world.decoder.address)
    for admin, address in zip(world.admins, addresses, strict=True):
        admin.names()  # what was asked there must not be known here
        with grpc.insecure_channel(address) as channel:
            stub = ModelAdminServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ListModels(pb.ListModelsRequest(), timeout=SECONDS)
        assert refused.value.code() is Code.UNIMPLEMENTED


def test_models_that_are_not_loaded_are_refused(world: World) -> None:
    world.load("one")
    with world.client("one") as client:
        text_of(client)
        for admin in world.admins:
            admin.unload("one")
        with pytest.raises(NotFoundError, match="must be one that is loaded") as refusal:
            client.encode(TEXT)
    assert refusal.value.reason == "MODEL_NOT_FOUND"
    world.load("one")
    with world.client("one") as client:
        assert text_of(client)


@pytest.mark.parametrize("name", ["", ".", "..", "../one", "/etc", "one/", "a/b", "link"])
def test_names_are_no_paths(world: World, name: str) -> None:
    for admin in world.admins:
        with refused(Code.INVALID_ARGUMENT, "BAD_MODEL_NAME", "name", name):
            admin.load(name)


def test_what_cannot_be_loaded_or_unloaded(world: World) -> None:
    world.load("one")
    for admin in world.admins:
        with refused(Code.NOT_FOUND, "MODEL_NOT_FOUND"):
            admin.load("empty")
        with refused(Code.NOT_FOUND, "MODEL_NOT_FOUND"):
            admin.unload("two")
        with refused(Code.ALREADY_EXISTS, "MODEL_LOADED"):
            admin.load("one")
        with refused(Code.FAILED_PRECONDITION, "DEFAULT_MODEL"):
            admin.unload("tiny-0")
        with refused(Code.FAILED_PRECONDITION, "MODEL_UNUSABLE") as refusal:
            admin.load("broken")
        assert "model_type: must be one of" in refusal.error.message
        assert admin.names()[0] == ["tiny-0", "one"]


def test_weights_stay_within_their_budget(
    root: Path, tiny_model: Path, servers: ServerThread
) -> None:
    settings: dict[str, Any] = {"models": str(root), "admin": "127.0.0.1:0"}
    start: tuple[Callable[..., Running[Any]], ...] = (servers.start_encoder, servers.start_decoder)
    for each in start:
        size = Admin(each(tiny_model, **settings)).load("one").weight_bytes
        admin = Admin(each(tiny_model, **settings, models_bytes=2 * size + size // 2))
        admin.load("one")
        with refused(Code.RESOURCE_EXHAUSTED, "MODELS_OVER_BUDGET"):
            admin.load("two")
        admin.unload("one")
        admin.load("two")


def test_a_memory_of_one_model_is_refused_by_another(world: World) -> None:
    world.load("one", "two")
    with world.client("one") as one, world.client("two") as two:
        memory = one.encode(TEXT)
        with pytest.raises(FailedPreconditionError) as refusal:
            two.open_session(memory, language="de")
        assert refusal.value.reason == "FINGERPRINT_MISMATCH"
        with one.open_session(memory, language="de") as session:
            assert list(session.generate())


def test_unloading_waits_for_sessions_and_may_be_given_up(world: World) -> None:
    world.load("one")
    _, admin = world.admins
    with world.client("one") as client:
        memory = client.encode(TEXT)
        session = client.open_session(memory, language="de")
        with pytest.raises(grpc.RpcError) as late:
            admin.unload("one", timeout=0.3)
        assert late.value.code() is Code.DEADLINE_EXCEEDED
        eventually(lambda: _opens(client, memory))  # it takes new work again
        unloading = threading.Thread(target=admin.unload, args=("one",))
        unloading.start()
        eventually(lambda: not _opens(client, memory))
        assert list(session.generate()), "what has begun goes on"
        assert unloading.is_alive()
        session.close()
        unloading.join(SECONDS)
    assert admin.names()[0] == ["tiny-0"]
    assert world.decoder.service.load().held == 0


def _opens(client: Client, memory: Any) -> bool:
    try:
        client.open_session(memory, language="de").close()
    except NotFoundError:
        return False
    return True


def test_what_is_counted_by_model(world: World) -> None:
    world.load("one")
    with world.client("one") as client:
        text_of(client)
    for running in (world.encoder, world.decoder):
        assert running.metric("splitformer_model_requests_total", model="one") == 1
        assert running.metric("splitformer_model_requests_total", model="tiny-0") == 0
        assert running.metric("splitformer_model_bytes", model="one") > 0
    for admin in world.admins:
        admin.unload("one")
    assert world.encoder.metric("splitformer_model_bytes", model="one") == 0


def test_nothing_is_administered_where_nobody_has_asked_for_it(
    servers: ServerThread, tiny_model: Path
) -> None:
    running = servers.start_encoder(tiny_model)
    with grpc.insecure_channel(running.address) as channel, pytest.raises(grpc.RpcError) as refusal:
        ModelAdminServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=SECONDS)
    assert refusal.value.code() is Code.UNIMPLEMENTED
    assert running.server.admin_port == 0


def test_the_command(world: World) -> None:
    where = ["--encoder-admin", world.encoder.admin, "--decoder-admin", world.decoder.admin]

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["models", *arguments, *where])

    loaded = run("load", "one")
    assert loaded.exit_code == 0, loaded.output
    rows = [line.split("\t") for line in loaded.stdout.splitlines()]
    assert [row[:3] for row in rows] == [[s, "one", "loaded"] for s in ("encoder", "decoder")]
    assert "decoder\ttwo\tavailable" in run("list").stdout
    again = run("load", "one")
    assert again.exit_code == 1
    assert "(MODEL_LOADED)" in again.output
    assert "encoder\tone\tunloaded" in run("unload", "one").stdout
    assert run("load").exit_code == 2
    assert CliRunner().invoke(app, ["models", "list"]).exit_code == 2

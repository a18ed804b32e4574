"""Every command and every Python block of the documents is run, here or where it is said."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitformer.serving.local import LocalServices, Ports
from splitformer_client import connect
from tests.support.certificates import Authority
from tests.support.manifests import Rendered
from tests.support.markdown import ROOT, Found, blocks, commands, documents
from tests.support.sounds import file_of, sound
from tests.support.whisper import make_whisper

SPEECH = ROOT / "docs/speech.md"
WEIGHTS = ROOT / "models/splitformer_models/en-multi/model.safetensors"
ELSEWHERE = {
    "make demo": ("tests/system/test_commands.py", "demo.py"),
    "make test": (".ci/run", "make test"),
    "splitformer models list": ("tests/service/test_models.py", 'run("list")'),
    "splitformer models load opus-mt-en-de": ("tests/service/test_models.py", 'run("load", '),
    "splitformer models unload opus-mt-en-de": ("tests/service/test_models.py", 'run("unload", '),
    "make up": ("tests/containers/test_up.py", 'verb("up"'),
    "make down": ("tests/support/composed.py", 'verb("down"'),
    "docker build -f deploy/Dockerfile --build-arg SERVICE=client"
    " --build-arg REQUIREMENTS=client -t splitformer-client .": (
        "tests/support/images.py",
        "engine.images.build",
    ),
    "docker run --rm --network splitformer -e SPLITFORMER_ENCODER=encoder:50051"
    " -e SPLITFORMER_DECODER=decoder:50052"
    ' splitformer-client translate --to de,fr "Open the file."': (
        "tests/containers/test_up.py",
        'run_client(engine, "translate", "--to", "de,fr", "Open the file.")',
    ),
    "COMPOSE_FILE=compose.yaml:compose.scale.yaml make up"
    ' ARGS="--scale encoder=2 --scale decoder=3"': (
        "tests/containers/test_scale.py",
        '"--scale", "encoder=2", "--scale", "decoder=3"',
    ),
    'COMPOSE_FILE=compose.yaml:compose.scale.yaml make roll ARGS="encoder decoder"': (
        "tests/containers/test_scale.py",
        'verb("roll", "encoder", "decoder")',
    ),
    "sh deploy/certificates.sh deploy/tls": ("tests/containers/test_tls.py", "certificates.sh"),
    "COMPOSE_FILE=compose.yaml:compose.tls.yaml make up": (
        "tests/containers/test_tls.py",
        'FILES = ("compose.yaml", "compose.tls.yaml")',
    ),
    "SPLITFORMER_TLS_CA=deploy/tls/ca.pem SPLITFORMER_TLS_CERTIFICATE=deploy/tls/client.pem"
    ' SPLITFORMER_TLS_KEY=deploy/tls/client.key splitformer translate --to de "Open the file."': (
        "tests/containers/test_tls.py",
        '"SPLITFORMER_TLS_KEY"',
    ),
    "COMPOSE_FILE=compose.yaml:compose.override.yaml:compose.gpu.yaml make up ARGS=--build": (
        "tests/unit/test_compose.py",  # what it makes of the files, without a GPU
        'rendered("override", "gpu")',
    ),
    "splitformer inspect FOLDER": ("tests/service/test_inspect_verify.py", 'run("inspect", '),
    "splitformer verify FOLDER --source-language eng_Latn --target-language fra_Latn": (
        "tests/service/test_inspect_verify.py",
        'run("verify", ',
    ),
}
"""Commands that are run by something else: the file, and what in it shows that."""

RUNNER = """
import ast, asyncio, inspect, json, sys
loop, names = asyncio.new_event_loop(), {"__name__": "__main__"}
asyncio.set_event_loop(loop)
for file, line, text in json.load(sys.stdin):
    code = compile(
        "\\n" * (line - 1) + text, file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    result = eval(code, names)
    if inspect.iscoroutine(result):
        loop.run_until_complete(result)
    print("<end of block>", flush=True)
"""

ALL_COMMANDS = [
    pytest.param(found, id=found.place) for file in documents() for found in commands(file)
]
WITH_PYTHON = [
    pytest.param(file, id=str(file.relative_to(ROOT)))
    for file in documents()
    if blocks(file, "python")
]


@pytest.fixture(scope="module")
def local(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """Both services, over the embedded model where its weights are there."""
    log = tmp_path_factory.mktemp("docs") / "log"
    model = "" if WEIGHTS.is_file() else str(tiny_model)
    with LocalServices(Ports.free(), model, log) as services:
        yield services


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """Both services over a tiny Whisper."""
    folder = tmp_path_factory.mktemp("whisper")
    model = make_whisper(folder / "tiny-whisper")
    with LocalServices(Ports.free(), str(model), folder / "log") as services:
        yield services


@pytest.fixture(scope="module")
def environment(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which `splitformer` is a command that finds the services."""
    return environment_of(local, tmp_path_factory)


@pytest.fixture(scope="module")
def hearing_environment(
    hearing: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The same for the services that take audio."""
    return environment_of(hearing, tmp_path_factory)


def environment_of(
    local: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "splitformer"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m splitformer_client "$@"\n')
    command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(sys.path),
        "SPLITFORMER_ENCODER": local.encoder,
        "SPLITFORMER_DECODER": local.decoder,
    }


@pytest.mark.parametrize("file", WITH_PYTHON)
def test_python_blocks_run(file: Path, request: pytest.FixtureRequest) -> None:
    """All blocks of a page run in order and see each other's names."""
    local: LocalServices = request.getfixturevalue("hearing" if file == SPEECH else "local")
    environment = request.getfixturevalue(environment_for(file))
    found = blocks(file, "python")
    sources = [(str(file), block.line, at_home(block.text, local)) for block in found]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(sources),
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for block, printed in zip(found, done.stdout.split("<end of block>\n"), strict=False):
        promised = promised_output(block)
        assert promised is None or printed == promised, block.place


def at_home(text: str, local: LocalServices) -> str:
    """Replace the usual addresses by those of the services that run here."""
    return text.replace("localhost:50051", local.encoder).replace("localhost:50052", local.decoder)


def promised_output(block: Found) -> str | None:
    """Return the text block that follows with nothing but the word "prints" in between."""
    page = block.file.read_text(encoding="utf-8")
    rest = page.partition(f"```python\n{block.text}```")[2]
    match = re.match(r"\n\nprints\n\n```text\n(.*?)```", rest, re.DOTALL)
    return match[1] if match else None


KNOWN_NAMES = (
    *("num_beams", "num_return_sequences", "length_penalty", "temperature", "top_k", "top_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "stop", "seed", "glossary"),
    *("target_prefix", "alternatives", "alignments"),
)


@pytest.mark.parametrize("name", KNOWN_NAMES)
def test_every_option_has_examples_in_python_and_in_the_shell(name: str) -> None:
    page = ROOT / "docs/client.md"
    python = [block.text for block in blocks(page, "python")]
    assert any(re.search(rf'\b{name}=|"{name}":', text) for text in python)
    option = "--term" if name == "glossary" else f"--{name.replace('_', '-')}"
    assert any(option in shlex.split(command.text) for command in commands(page))


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_commands_run(
    command: Found, request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path
) -> None:
    words = shlex.split(command.text)
    if (text := " ".join(command.text.split())) in ELSEWHERE:
        name, needle = ELSEWHERE[text]
        assert needle in (ROOT / name).read_text(encoding="utf-8")
    elif words == [".venv/bin/python", "-m", "splitformer.native"]:
        subprocess.run([sys.executable, *words[1:]], check=True, timeout=100)
    elif words[:2] == [".venv/bin/python", "-m"]:
        Authority(tmp_path / "tls").pair("server")
        run_service([sys.executable, *words[1:]], tiny_model, tmp_path)
    elif words[0] in ("promtool", "prometheus"):
        run_prometheus(words)
    elif words[0] == "kubectl":
        check_kubectl(words)
    elif "splitformer" in words:
        run_client(command.text, request.getfixturevalue(environment_for(command.file)), tmp_path)
    else:
        pytest.fail(f"{command.place}: nobody runs `{command.text}`")


def environment_for(file: Path) -> str:
    """Name of the fixture with the environment that a page's commands run in."""
    return "hearing_environment" if file == SPEECH else "environment"


def run_service(words: list[str], model: Path, folder: Path) -> None:
    """Start a service as the page says, but on free ports; wait until it serves; stop it.

    The folder it runs in has the TLS files that the pages speak of.
    """
    here = ["--port", "0", "--metrics-port", "0", "--host", "127.0.0.1", "--model", str(model)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(
        [*words, *here], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if '"event": "serving"' in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, lines
    assert '"event": "stopped"' in lines[-1]


def check_kubectl(words: list[str]) -> None:
    """Render what the command renders or applies; no cluster is at hand to apply it to."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    if "rollout" in words:
        rendered = Rendered("overlays/cpu")
        for kind, name in (each.split("/") for each in words if "/" in each):
            rendered.named({"deployment": "Deployment", "statefulset": "StatefulSet"}[kind], name)
    else:
        assert words[1:-1] in (["kustomize"], ["apply", "-k"])
        assert Rendered(Path(words[-1]).relative_to("deploy/kubernetes").as_posix()).all


def run_client(command: str, environment: dict[str, str], folder: Path) -> None:
    """Run a command of ours in a shell, in a folder with a file to translate."""
    (folder / "notes.txt").write_text("Open the file.\n\nSave all changes.\n")
    (folder / "talk.flac").write_bytes(file_of(sound(2.5), "FLAC"))
    if shutil.which("jq") is None:
        command = command.partition(" | jq ")[0]
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    given = {"notes.txt", "talk.flac"}
    written = [file.read_text() for file in folder.iterdir() if file.name not in given]
    assert done.stdout or any(written)


def run_prometheus(words: list[str]) -> None:
    """Let Prometheus read our configuration, where it is installed."""
    if shutil.which(words[0]) is None or shutil.which("promtool") is None:
        pytest.skip(f"{words[0]} is not installed")
    if words[0] == "prometheus":  # tests/system/test_prometheus.py starts it
        words = ["promtool", "check", "config", words[1].removeprefix("--config.file=")]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the default weights are not there")
def test_the_readme_shows_what_the_demo_translates(local: LocalServices) -> None:
    shown = blocks(ROOT / "README.md", "text")[0].text
    lines = dict(line.split("\t") for line in shown.splitlines() if "\t" in line)
    source = lines.pop("source")
    with connect(local.encoder, local.decoder) as client:
        translations = client.translate(source, to=tuple(lines))
    again = "run `make demo` and paste its output into README.md"
    assert lines == {each.language: each.text for each in translations}, again


def test_a_page_with_a_promise_is_read_right(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        textwrap.dedent(
            """
            ```python
            print(1)
            ```

            prints

            ```text
            1
            ```

            ```sh
            one \\
              --two
            # a comment
            three
            ```

            ```console
            $ four
            its output
            ```
            """
        )
    )
    (block,) = blocks(page, "python")
    assert (block.line, block.text, promised_output(block)) == (3, "print(1)\n", "1\n")
    assert [found.text for found in commands(page)] == ["one   --two", "three", "four"]

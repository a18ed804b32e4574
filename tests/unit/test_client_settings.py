"""Settings and generation options of the client."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from splitformer.errors import ConfigurationError, InvalidArgumentError
from splitformer_client import aio
from splitformer_client.options import GenerationOptions
from splitformer_client.settings import Settings
from splitformer_client.writing import options_message


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("decoders.example.com:50052", True),
        ("d-0.decoders.example.com:50052", True),
        ("D-0.Decoders.Example.COM:50052", True),
        ("localhost:1", True),
        ("evil-decoders.example.com:50052", False),
        ("decoders.example.com.evil.org:50052", False),
        ("example.com:50052", False),
        ("decoders.example.com", False),
        ("unix:/tmp/decoders.example.com:1", False),
        ("dns:///decoders.example.com:50052", False),
        ("evil.org,decoders.example.com:50052", False),
        ("evil.org:1/decoders.example.com:50052", False),
        ("evil.org:1\n.decoders.example.com:50052", False),
        ("", False),
    ],
)
def test_allowed_endpoints(endpoint: str, allowed: bool) -> None:
    settings = Settings(allowed_endpoint_suffixes=(".decoders.example.com", "localhost"))
    assert settings.allows(endpoint) is allowed


def test_nothing_is_allowed_by_default() -> None:
    assert not Settings().allows("localhost:50052")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"timeout": 0.0}, "timeout: must be above 0 seconds, got 0.0"),
        ({"timeout": float("nan")}, "timeout: must be above 0"),
        ({"encoder": ""}, "encoder: must be an address"),
        ({"chunk_bytes": 0}, "chunk_bytes: must be at least 1, got 0"),
        ({"upload_attempts": 0}, "upload_attempts: must be at least 1, got 0"),
        ({"allowed_endpoint_suffixes": ("a", "")}, "must not hold empty names"),
    ],
)
def test_bad_settings(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings(**bad)


async def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITFORMER_ENCODER", "encoders.example.com:1")
    monkeypatch.delenv("SPLITFORMER_DECODER", raising=False)
    assert aio.connect().settings.encoder == "encoders.example.com:1"
    assert aio.connect().settings.decoder == "localhost:50052"
    assert aio.connect("given:1").settings.encoder == "given:1"


async def test_one_suffix_may_be_a_plain_string() -> None:
    client = aio.connect(allowed_endpoint_suffixes="example.com")
    assert client.settings.allowed_endpoint_suffixes == ("example.com",)


def test_options_that_are_left_out_are_not_set() -> None:
    message = options_message({"temperature": 0.0, "top_k": None, "stop": [".", "!"]})
    assert message.HasField("temperature")
    assert not message.HasField("top_k")
    assert not message.HasField("seed")
    assert list(message.stop) == [".", "!"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tempreature": 1.0}, TypeError, "tempreature: not a generation option; known are max_"),
        ({"beam_size": 4}, TypeError, "beam_size: .*what others call that is num_beams here;"),
        ({"top_k": "5"}, TypeError, "options.top_k: .*, got '5'"),
        ({"top_k": 1.5}, TypeError, "options.top_k: .*, got 1.5"),
        ({"top_k": [5]}, TypeError, r"options.top_k: .*, got \[5\]"),
        ({"stop": "."}, TypeError, "options.stop: must be several, got '.'"),
        ({"stop": [5]}, TypeError, r"options.stop: .*, got \[5\]"),
        ({"suppressed_tokens": 5}, TypeError, "options.suppressed_tokens: must be several, got 5"),
        (
            {"bad_words": [5]},
            TypeError,
            r"bad_words\[0\]: must be text or token ids, got 5",
        ),
        ({"bad_words": ["a", b"b"]}, TypeError, r"options.bad_words\[1\]: must be text or"),
        ({"glossary": ["file"]}, TypeError, "options.glossary: must be a mapping, got .'file'"),
        (
            {"glossary": {"a": 5}},
            TypeError,
            "glossary: must map strings to strings, got 'a'",
        ),
        ({"logit_bias": [5]}, TypeError, r"options.logit_bias: must be a mapping, got \[5\]"),
        ({"logit_bias": {5: "a"}}, TypeError, "options.logit_bias: .*, got .5: 'a'"),
        ({"logit_bias": {2**31: 1.0}}, InvalidArgumentError, "options.logit_bias: must be within"),
        ({"mode": ["loop"]}, InvalidArgumentError, "options.mode: must be one of loop, parallel"),
        ({"seed": -1}, InvalidArgumentError, "options.seed: .*, got -1"),
        ({"seed": -1, "top_k": 2**31}, InvalidArgumentError, "options.seed: .*; options.top_k: .*"),
        ({"stop": ["a", "\ud800"]}, InvalidArgumentError, "options.stop: must be text .*ud800"),
        (
            {"bad_words": [[2**31]]},
            InvalidArgumentError,
            r"words\[0\].tokens.ids: must be within",
        ),
        ({"glossary": {"a": "\ud800"}}, InvalidArgumentError, r"options.glossary\[0\].target: "),
        ({"draft": "guess"}, InvalidArgumentError, "options.draft: .* off, copy, jacobi.*'guess'"),
        ({"mode": 2}, InvalidArgumentError, "options.mode: must be one of loop, parallel, got 2"),
    ],
)
def test_bad_options(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        options_message(options)


def test_what_can_be_gone_through_is_a_list() -> None:
    message = options_message({"stop": {"."}, "suppressed_tokens": range(3), "bad_words": ("a",)})  # type: ignore[typeddict-item]
    assert (list(message.stop), list(message.suppressed_tokens)) == (["."], [0, 1, 2])
    assert [word.text for word in message.bad_words] == ["a"]


def test_every_option_is_a_field_of_the_protocol() -> None:
    assert GenerationOptions.__annotations__.keys() <= set(
        options_message({}).DESCRIPTOR.fields_by_name
    )


def test_importing_the_package_imports_no_grpc() -> None:
    code = (
        "import sys, splitformer_client\n"
        "print([name for name in ('grpc', 'numpy', 'google.protobuf', 'torch')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_can_be_imported() -> None:
    code = (
        "import sys, splitformer_client\n"
        "for name in splitformer_client.__all__: getattr(splitformer_client, name)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

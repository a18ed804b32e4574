"""Which encoders a decoder may dial: what an entry means, and what tries to look like it."""

from __future__ import annotations

import pytest

from decoder_service.allow_list import AllowList
from decoder_service.settings import DecoderSettings
from splitformer.errors import ConfigurationError

ALLOWED = [
    ("encoder:50051", "encoder:50051"),
    ("Encoder.Example:50051", "encoder.example:50051"),
    ("10.0.0.1:50051", "10.0.0.1:50051"),
    ("[::1]:50051", "[::1]:50051"),
    ("[::1]:*", "[::1]:7"),
    ("encoder:*", "encoder:1"),
    ("*.encoders.example:50051", "a-1.encoders.example:50051"),
    ("*.splitformer:50051", "0123456789ab.splitformer:50051"),
    ("*.splitformer:*", "x.SPLITFORMER:1"),
]


@pytest.mark.parametrize(("entry", "endpoint"), ALLOWED)
def test_an_entry_allows_what_it_says(entry: str, endpoint: str) -> None:
    assert AllowList([entry]).allows(endpoint)
    assert AllowList(["other:1", entry]).allows(endpoint)
    assert not AllowList([]).allows(endpoint)


SPOOFED = [
    "",
    "splitformer:50051",
    ".splitformer:50051",
    "a.b.splitformer:50051",
    "asplitformer:50051",
    "a.splitformer:50052",
    "a.splitformer:*",
    "*.splitformer:50051",
    "a.splitformer",
    "a.splitformer:",
    "a.splitformer.:50051",
    "a.splitformer.evil:50051",
    "a.splitformer:50051.evil:50051",
    "evil:1,a.splitformer:50051",
    "a.splitformer:50051,evil:1",
    "evil/.splitformer:50051",
    "evil#.splitformer:50051",
    "evil?a.splitformer:50051",
    "evil@a.splitformer:50051",
    "evil%00.splitformer:50051",
    "dns:a.splitformer:50051",
    "dns:///a.splitformer:50051",
    "dns://evil/a.splitformer:50051",
    "ipv4:a.splitformer:50051",
    "unix:a.splitformer:50051",
    "unix-abstract:a.splitformer:50051",
    "[evil].splitformer:50051",
    " a.splitformer:50051",
    "a.splitformer:50051\n",
    "a.splitformer\n:50051",
    "a\u3002splitformer:50051",  # an ideographic full stop
    "\uff41.splitformer:50051",  # a letter of another width
    "a.splitformer:\uff15\uff10\uff10\uff15\uff11",  # digits of another width
    "-.splitformer:50051",
    "a.splitformer:500510",
]


@pytest.mark.parametrize("endpoint", SPOOFED)
def test_what_only_looks_allowed_is_not(endpoint: str) -> None:
    assert not AllowList(["*.splitformer:50051"]).allows(endpoint)


def test_an_address_has_no_domain() -> None:
    allowed = AllowList(["*.0.0.1:50051"])
    assert allowed.allows("127.0.0.1:50051")  # it was asked for
    assert not allowed.allows("[::127.0.0.1]:50051")


@pytest.mark.parametrize(
    "entry",
    ["", "encoder", "encoder:", "*:50051", "*", "*.:1", "a.*.b:1", "*.*.b:1", "e:x", "a b:1"],
)
def test_an_entry_of_no_known_form_is_told_at_start(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^encoders: must be host:port, host:\* or"):
        DecoderSettings(encoders=("encoder:1", entry))

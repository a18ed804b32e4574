"""What is looked at in a translation, and what one that is not as wished is followed by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from splitformer import errors
from splitformer_client.loops import loops
from splitformer_client.placeholders import astray, placeholders
from tests.support.client_fakes import abort, end, token
from tests.support.client_world import World

SOURCE = "Copy %s to <b>{place}</b>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%s of %1$d, %(name)s, %-5.2f: %lu", "%s %1$d %(name)s %-5.2f %lu"),
        ("%1 and %L2, %n files, 5%%", "%1 %L2 %n %%"),
        ("{} {0} {name} {0:d} {a.b!r} ${x} {{y}}", "{} {0} {name} {0:d} {a.b!r} ${x} {{y}}"),
        ("$user.name sees $x.", "$user.name $x"),
        ("%PRODUCTNAME, %HOME%", "%PRODUCTNAME %HOME%"),
        ("<b>R&D</b><br/> &amp; &#160;", "<b> </b> <br/> &amp; &#160;"),
        ("100% sure, 20%: 3 < 4 > 2, $5, R&D; {a, b}", ""),
        ("%status 5%of %dx", ""),
        ("发票%s已被入。%1は{0}を", "%s %1 {0}"),
    ],
)
def test_what_is_a_placeholder(text: str, found: str) -> None:
    assert list(placeholders(text)) == found.split()


def test_a_tag_is_one_with_what_is_in_it() -> None:
    assert list(placeholders('<a href="%1">here</a>')) == ['<a href="%1">', "</a>"]


def test_how_many_are_astray() -> None:
    assert astray("%s: %d", "%d: %s") == 0
    assert astray("%s: %s", "%s") == 1
    assert astray("%s", "%s %s %d") == 2
    assert astray("%s", "%S") == 1


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("No sé que te te te te temía.", True),
        ("No sé que te te te.", False),
        ("ユニットのユニットのユニットのユニットの", True),
        ("かかかかかかかか", True),
        ("---- 1.1.1.1.1 ========", False),
        ("von der Klasse der Klasse der Klasse der Klasse", True),
    ],
)
def test_what_is_a_loop(text: str, looped: bool) -> None:
    assert loops("Nothing of the kind.", text) == looped
    assert not loops("ha ha ha ha ha", text), "its source does so too"


# --- made again -----------------------------------------------------------------------------------


def says(*answers: str) -> Any:
    """Return a body of Generate that says one text after the other, a call each."""
    left = list(answers)

    async def body(request: Any, context: Any) -> AsyncIterator[Any]:
        for index, text in enumerate(left.pop(0).split("|")):
            yield token(index, text)
        yield end()

    return body


def glossaries(world: World) -> list[dict[str, str]]:
    requests = world.decoder.recorded.requests("Generate")
    return [{e.source: e.target for e in request.options.glossary} for request in requests]


async def test_what_is_kept_is_asked_for_once(world: World) -> None:
    world.decoder.generate = says("<b>{place}|</b> %s")
    (found,) = await world.client.translate(SOURCE, "de")
    assert (found.text, found.placeholders_kept) == ("<b>{place}</b> %s", True)
    assert glossaries(world) == [{}]


async def test_what_is_lost_is_translated_again_under_a_glossary(world: World) -> None:
    world.decoder.generate = says("{place}|</b> %s", "%s <b>|{place}</b>")
    (found,) = await world.client.translate(
        SOURCE, "de", glossary={"Copy": "Kopie", "%s": "%d"}, draft="copy", max_new_tokens=9
    )
    assert found.text == "%s <b>{place}</b>"
    assert [each.text for each in found.tokens] == ["%s <b>", "{place}</b>"]
    own = {"Copy": "Kopie", "%s": "%d"}
    assert glossaries(world) == [own, {"<b>": "<b>", "{place}": "{place}", "</b>": "</b>", **own}]
    first, again = world.decoder.recorded.requests("Generate")
    assert (first.options.draft, again.options.draft) == (2, 0)
    assert again.options.max_new_tokens == 9
    assert world.encoder.released == ["lease-1", "lease-2"]


@pytest.mark.parametrize("again", ["%s %s %s", "<b></b>"])
async def test_no_better_a_second_time_the_first_counts(world: World, again: str) -> None:
    world.decoder.generate = says("<b>%s</b>", again)
    (found,) = await world.client.translate(SOURCE, "de")
    assert (found.text, found.placeholders_kept) == ("<b>%s</b>", False)


@pytest.mark.parametrize(
    "options",
    [
        {"keep_placeholders": False},
        {"temperature": 1.0},
        {"alternatives": 2},
        {"stop": ["."]},
        {"mode": "parallel"},
        {"target_prefix": [5, 6]},
    ],
)
async def test_it_is_left_as_it_is_where_nothing_else_can_be(
    world: World, options: dict[str, Any]
) -> None:
    world.decoder.generate = says("%s")
    (found,) = await world.client.translate(SOURCE, "de", **options)
    assert found.text == "%s"
    assert not found.placeholders_kept


async def test_a_prefix_counts(world: World) -> None:
    world.decoder.generate = says("<b>{place}</b>")
    (found,) = await world.client.translate(SOURCE, "de", target_prefix="%s: ")
    assert found.placeholders_kept


@pytest.mark.parametrize(("source", "said"), [(SOURCE, "%s"), ("I was afraid.", "te te te te te")])
async def test_what_the_server_refuses_the_second_time_does_no_harm(
    world: World, source: str, said: str
) -> None:
    first = says(said)

    async def body(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.options.glossary or request.options.no_repeat_ngram_size:
            await abort(context, errors.InvalidArgumentError("options: no room"))
        async for message in first(request, context):
            yield message

    world.decoder.generate = body
    (found,) = await world.client.translate(source, "de")
    assert found.text == said


async def test_other_failures_are_told(world: World) -> None:
    first = says("%s")

    async def body(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.options.glossary:
            await abort(context, errors.ResourceExhaustedError("options.num_beams: too much"))
        async for message in first(request, context):
            yield message

    world.decoder.generate = body
    with pytest.raises(errors.ResourceExhaustedError):
        await world.client.translate(SOURCE, "de", timeout=3)


async def test_a_stream_shows_nothing_that_is_taken_back(world: World) -> None:
    world.decoder.generate = says("%s", "%s <b>|{place}|</b>")
    texts = [each.text async for each in world.client.stream(SOURCE, "de")]
    assert texts == ["%s <b>", "{place}", "</b>"]
    world.decoder.generate = says("%s")
    texts = [e.text async for e in world.client.stream(SOURCE, "de", keep_placeholders=False)]
    assert texts == ["%s"]


async def test_a_loop_is_broken(world: World) -> None:
    world.decoder.generate = says("te te te te te", "temía")
    (found,) = await world.client.translate("I was afraid.", "es", draft="copy")
    assert found.text == "temía"
    first, again = world.decoder.recorded.requests("Generate")
    assert not first.options.HasField("no_repeat_ngram_size")
    assert (again.options.no_repeat_ngram_size, again.options.draft) == (3, 2)
    assert not again.options.glossary


@pytest.mark.parametrize(
    "answers",
    [
        ["%s te te te te te", "temía %s"],
        ["temía", "%s te te te te te", "temía %s"],
    ],
)
async def test_what_breaks_a_loop_keeps_the_placeholders(world: World, answers: list[str]) -> None:
    world.decoder.generate = says(*answers)
    (found,) = await world.client.translate("%s was afraid.", "es")
    assert found.text == "temía %s"
    last = world.decoder.recorded.requests("Generate")[-1]
    assert [entry.source for entry in last.options.glossary] == ["%s"]
    assert last.options.no_repeat_ngram_size == 3


@pytest.mark.parametrize(
    "options", [{"break_loops": False}, {"no_repeat_ngram_size": 0}, {"mode": "parallel"}]
)
async def test_a_loop_is_left_where_that_is_wished(world: World, options: dict[str, Any]) -> None:
    world.decoder.generate = says("te te te te te")
    (found,) = await world.client.translate("I was afraid.", "es", **options)
    assert found.text == "te te te te te"


async def test_a_stream_gives_tokens_as_they_come_and_loops_with_them(world: World) -> None:
    world.decoder.generate = says("te te te te te")
    assert len([each async for each in world.client.stream("I was afraid.", "es")]) == 1

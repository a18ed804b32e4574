"""Glossaries through the client and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitformer.errors import InvalidArgumentError
from splitformer_client import Client, connect
from tests.conftest import Services, nothing_is_held
from tests.support.rpc import eventually

TEXT = "Open the file."
COMMAND = [sys.executable, "-m", "splitformer_client", "translate"]


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with connect(services.encoder.address, services.decoder.address) as connected:
        yield connected
    eventually(lambda: nothing_is_held(services))


def test_terms_come_out_as_they_must(client: Client) -> None:
    glossary = {"open": "öffnen", "file": "Größe", "tape": "Band"}
    (found,) = client.translate(TEXT, "de", glossary=glossary, max_new_tokens=30)
    assert "ffnen" in found.text
    assert "Größe" in found.text
    assert found.hypotheses[0].text == found.text
    memory = client.encode(TEXT)
    with client.open_session(memory, language="de") as session:
        assert tuple(session.generate(glossary=glossary, max_new_tokens=30)) == found.tokens
    tokens = [*client.stream(TEXT, "de", glossary=glossary, max_new_tokens=30)]
    assert tuple(tokens) == found.tokens


def test_one_glossary_is_for_all_languages_or_each_has_its_own(client: Client) -> None:
    for each in client.translate(TEXT, ["de", "fr"], glossary={"file": "Größe"}, max_new_tokens=30):
        assert "Größe" in each.text
    by_language = {"de": {"file": "Größe"}, "fr": {"file": "fichier"}}
    german, french, plain = client.translate(
        TEXT, ["de", "fr", "es"], glossary=by_language, max_new_tokens=30
    )
    assert "Größe" in german.text
    assert "fichier" in french.text
    assert plain.tokens == client.translate(TEXT, "es", max_new_tokens=30)[0].tokens


def test_every_piece_of_a_long_text_keeps_to_it(client: Client) -> None:
    text = f"{TEXT}\n\n{TEXT}"
    (found,) = client.translate(text, "de", glossary={"file": "Größe"}, max_new_tokens=20)
    assert found.text.count("Größe") >= 2


def test_glossaries_that_cannot_be(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="must be for languages that are asked for"):
        client.translate(TEXT, "de", glossary={"fr": {"file": "fichier"}})
    with pytest.raises(TypeError, match="must map strings to strings"):
        client.translate(TEXT, "de", glossary={"file": 5})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError) as caught:
        client.translate(TEXT, "de", glossary={"file": " "}, top_k=3)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["options.glossary[0].target", "options.top_k"]


def test_placeholders_are_kept_unless_that_is_not_wished(client: Client) -> None:
    source = "Copy %s to <b>{place}</b>"
    kept = client.translate(source, ["de", "fr"], max_new_tokens=40)
    plain = client.translate(source, ["de", "fr"], max_new_tokens=40, keep_placeholders=False)
    for found, lost in zip(kept, plain, strict=True):
        assert not lost.placeholders_kept, "this model knows nothing of placeholders"
        assert found.placeholders_kept
        for each in ("%s", "<b>", "{place}", "</b>"):
            assert found.text.count(each) == 1
        assert "".join(token.text for token in found.tokens) + found.end.text == found.text
    long = client.translate(f"{source}.\n\n{TEXT}\n\n%s %s!", "de", max_new_tokens=30)
    assert long[0].placeholders_kept


# --- the command ----------------------------------------------------------------------------------


def run(services: Services, *arguments: str, text: str = TEXT) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPLITFORMER_ENCODER": services.encoder.address,
        "SPLITFORMER_DECODER": services.decoder.address,
        "COLUMNS": "300",
    }
    return subprocess.run(
        [*COMMAND, *arguments, "--max-new-tokens", "30", text],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_the_command_takes_files_and_terms(
    services: Services, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "terms.tsv"
    file.write_text("\ufefffile\tGröße\tde\n\nfile\tfichier\tfr\nfile\tx\tes\nopen\tÄ\n", "utf-8")
    done = run(services, "--to", "de,fr", "--glossary", str(file), "--term", "the=C++", "--json")
    assert done.returncode == 0, done.stderr
    translations = json.loads(done.stdout)["translations"]
    glossary = {
        language: {"open": "Ä", "the": "C++", "file": term}
        for language, term in (("de", "Größe"), ("fr", "fichier"))
    }
    found = client.translate(TEXT, ["de", "fr"], glossary=glossary, max_new_tokens=30)
    assert {each.language: each.text for each in found} == {
        language: answer["text"] for language, answer in translations.items()
    }
    plain = run(services, "--to", "de", "--term", "file=Größe")
    assert "Größe" in plain.stdout


def test_the_command_keeps_placeholders(services: Services) -> None:
    kept = run(services, "--to", "de", text="Copy %s")
    plain = run(services, "--to", "de", "--no-keep-placeholders", text="Copy %s")
    assert (kept.stdout.count("%s"), plain.stdout.count("%s")) == (1, 0)


@pytest.mark.parametrize(
    ("lines", "terms", "wrong"),
    [
        ("file\n", [], "line 1: must be a source term, a tab and a target term"),
        ("a\tb\n\t\n\tx\n", [], "line 3: must be a source term"),
        ("a\tb\na\tc\n", [], "line 2: 'a' comes out as 'b' already"),
        ("a\tb\n", ["a=c"], "--term: 'a' comes out as 'b' already"),
        ("", ["file"], "must be SOURCE=TARGET, got 'file'"),
        ("", ["=x"], "must be SOURCE=TARGET, got '=x'"),
    ],
)
def test_the_command_names_what_is_wrong(
    services: Services, tmp_path: Path, lines: str, terms: list[str], wrong: str
) -> None:
    file = tmp_path / "terms.tsv"
    file.write_text(lines)
    options = [word for term in terms for word in ("--term", term)]
    done = run(services, "--to", "de", "--glossary", str(file), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert wrong in " ".join(done.stderr.split())

"""The command's frame: lazy commands, lines in order, errors, exit statuses. Needs no server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from splitformer_client.cli.group import summary

NOBODY = ["--encoder", "127.0.0.1:1", "--decoder", "127.0.0.1:1"]


def run(
    *arguments: str, stdin: str = "", path: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    search = os.pathsep.join([*map(str, [path] if path else []), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "splitformer_client", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": search, "COLUMNS": "100", **environment},
    )


def add_command(folder: Path, value: str, modules: dict[str, str]) -> Path:
    """Make an installed distribution that adds the command `extra`."""
    info = folder / "addon-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: addon\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[splitformer.commands]\nextra = {value}\n")
    for name, source in modules.items():
        (folder / name).write_text(source)
    return folder


# --- commands of other distributions --------------------------------------------------------------

FUNCTION = '''
import sys
sys.stderr.write("imported\\n")

def extra(name: str, loud: bool = False) -> None:
    """Greet somebody.

    More about it.
    """
    print(f"hello {name}" + "!" * loud)
'''


def test_an_added_function_is_a_command(tmp_path: Path) -> None:
    add_command(tmp_path, "addon:extra", {"addon.py": FUNCTION})
    done = run("extra", "Ada", "--loud", path=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello Ada!\n")


def test_an_added_app_is_a_command(tmp_path: Path) -> None:
    source = (
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def one(): print('one')\n"
        "@app.command()\n"
        "def two(): print('two')\n"
    )
    add_command(tmp_path, "addon:app", {"addon.py": source})
    done = run("extra", "two", path=tmp_path)
    assert (done.returncode, done.stdout) == (0, "two\n")


def test_help_lists_commands_without_importing_them(tmp_path: Path) -> None:
    add_command(tmp_path, "addon:extra", {"addon.py": FUNCTION})
    done = run("--help", path=tmp_path)
    assert done.returncode == 0
    assert "Greet somebody." in done.stdout
    assert "translate" in done.stdout
    assert done.stderr == ""


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    add_command(tmp_path, "addon:extra", {"addon.py": "import no_such_module\n"})
    done = run("extra", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: extra: No module named 'no_such_module'; install addon[server] (MISSING_EXTRA)\n"
    )


def test_extras_that_a_command_names_are_named(tmp_path: Path) -> None:
    add_command(tmp_path, "addon:extra [torch]", {"addon.py": "import no_such_module\n"})
    assert "install addon[server,torch] (MISSING_EXTRA)" in run("extra", path=tmp_path).stderr


def test_errors_of_added_commands_are_reported(tmp_path: Path) -> None:
    source = (
        "from splitformer.errors import ConfigurationError, NotFoundError\n"
        "def extra(kind: str) -> None:\n"
        "    if kind == 'setting': raise ConfigurationError('port: must be above 0, got -1')\n"
        "    if kind == 'file': open('/no/such/file')\n"
        "    raise NotFoundError('model: is\\nunknown', reason='MODEL_NOT_FOUND')\n"
    )
    add_command(tmp_path, "addon:extra", {"addon.py": source})
    setting, file, other = (run("extra", kind, path=tmp_path) for kind in ("setting", "file", "x"))
    assert setting.returncode == 2
    assert setting.stderr == "error: port: must be above 0, got -1 (CONFIGURATION)\n"
    assert file.returncode == 1
    assert file.stderr == "error: /no/such/file: No such file or directory (OS_ERROR)\n"
    assert other.returncode == 1
    assert other.stderr == "error: model: is unknown (MODEL_NOT_FOUND)\n"


def test_a_command_cannot_be_replaced(tmp_path: Path) -> None:
    add_command(tmp_path, "addon:extra", {"addon.py": FUNCTION})
    entry_points = tmp_path / "addon-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[splitformer.commands]\ntranslate = addon:extra\n")
    done = run("translate", "--to", "ja", "hello", *NOBODY, path=tmp_path)
    assert "UNAVAILABLE" in done.stderr


def test_the_summary_of_a_module_that_cannot_be_found() -> None:
    entry = EntryPoint("x", "no_such_package.module:x", "splitformer.commands")
    assert summary(entry) == "From no_such_package.module."


def test_help_of_a_command_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from splitformer_client.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print([n for n in ('torch', 'grpc', 'numpy') if n in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


# --- usage and errors -----------------------------------------------------------------------------


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("splitformer ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["translate", "hello"],
        ["translate", "--to", "ja,,de", "hello"],
        ["translate", "--to", "ja", "--long-text", "cut", "hello"],
        ["translate", "--to", "ja", "--file", "/no/such/file"],
        ["translate", "--to", "ja", "hello", "--file", __file__],
        ["translate", "--to", "ja", "hello", "--timeout", "0"],
        ["health", "--service", "other"],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_unreachable_service_is_one_line() -> None:
    done = run("translate", "--to", "ja", "Open the file.", *NOBODY)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: encoder 127.0.0.1:1: ")
    assert done.stderr.endswith("(UNAVAILABLE)\n")
    assert done.stderr.count("\n") == 1


def test_addresses_come_from_the_environment() -> None:
    done = run("info", SPLITFORMER_ENCODER="127.0.0.1:2", SPLITFORMER_DECODER="127.0.0.1:2")
    assert done.returncode == 1
    assert "127.0.0.1:2" in done.stderr


def test_health_of_nobody() -> None:
    done = run("health", *NOBODY, "--service", "decoder")
    assert done.returncode == 1
    assert done.stdout == (
        "decoder\t127.0.0.1:1\t(server)\tUNAVAILABLE\n"
        "decoder\t127.0.0.1:1\tsplitformer.v1.DecoderService\tUNAVAILABLE\n"
    )


def test_input_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "latin-1.txt").write_bytes("Grüße".encode("latin-1"))
    done = run("translate", "--to", "ja", "--file", str(tmp_path / "latin-1.txt"), *NOBODY)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the input is not UTF-8: ")


def test_empty_lines_need_no_server() -> None:
    done = run("translate", "--to", "ja,de", *NOBODY, stdin="\n  \n")
    assert done.returncode == 0
    assert done.stdout == "ja\t\nde\t\nja\t\nde\t\n"


def test_an_error_names_its_line() -> None:
    done = run("translate", "--to", "ja", *NOBODY, stdin="\nhello\n")
    assert done.returncode == 1
    assert done.stdout == "ja\t\n"
    assert done.stderr.startswith("error: line 2: encoder 127.0.0.1:1: ")


def test_an_interrupt_is_quiet() -> None:
    command = [sys.executable, "-m", "splitformer_client", "translate", "--to", "ja", *NOBODY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ja\t\n"  # it is up, and waits for the next line
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")


def test_a_broken_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m splitformer_client translate --to ja {' '.join(NOBODY)}"
    done = subprocess.run(
        ["bash", "-c", f"yes '' | {command} | head -n 3; echo ${{PIPESTATUS[1]}}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "ja\t\n" * 3 + "1\n"
    assert done.stderr == ""


def test_help_fills_the_lines_of_a_terminal() -> None:
    shown = run("translate", "--help", COLUMNS="200").stdout
    assert "tokens appear as they are produced. Elsewhere each translation is a line of" in shown

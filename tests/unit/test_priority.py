"""What a process does to its priority and its session's, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from encoder_service.settings import EncoderSettings
from splitformer.errors import ConfigurationError

ALLOWED = sorted(os.sched_getaffinity(0))
AUTOGROUP = Path("/proc/self/autogroup")


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got 'batch'"):
        EncoderSettings(policy="batch")


def test_a_process_takes_its_place() -> None:
    core = ALLOWED[-1]
    program = f"take_place(cores_of('{core}'), 3); print(os.sched_getaffinity(0), os.nice(0))"
    assert placed(program).split() == [f"{{{core}}}", str(min(19, os.nice(0) + 3))]


@pytest.mark.parametrize("policy", ["usual", "idle"])
def test_all_threads_give_way(policy: str) -> None:
    program = (
        "import threading; waiting = threading.Event();"
        "threading.Thread(target=waiting.wait).start();"
        f"give_way('{policy}');"
        "print(*(os.sched_getscheduler(int(thread)) for thread in os.listdir('/proc/self/task')));"
        "waiting.set()"
    )
    expected = os.SCHED_IDLE if policy == "idle" else os.SCHED_OTHER
    assert placed(program).split() == 2 * [str(expected)]


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="Linux was built without groups of sessions")
def test_a_session_gets_the_niceness_of_the_process_whose_it_is() -> None:
    program = f"take_place(frozenset(), 3); give_way('usual'); print(open('{AUTOGROUP}').read())"
    assert placed(program, start_new_session=True).endswith(f" nice {min(19, os.nice(0) + 3)}\n\n")
    before = AUTOGROUP.read_text()
    assert placed(program) == f"{before}\n", "others of the session keep what they had"


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="Linux was built without groups of sessions")
def test_a_session_gives_way_unless_its_work_is_waited_for() -> None:
    program = (
        "import time; take_place(frozenset(), 3); give_way('usual');"
        f"said = lambda: open('{AUTOGROUP}').read().split()[-1];"
        "session().serve(True); at_once = said(); time.sleep(0.15);"
        "session().serve(True); then = said(); time.sleep(0.15);"
        "session().serve(False); print(at_once, then, said())"
    )
    lowered = str(min(19, os.nice(0) + 3))
    said = placed(program, start_new_session=True).split()
    assert said == [lowered, "0", lowered], "a change needs 0.1 s to the one before"


def placed(program: str, start_new_session: bool = False) -> str:
    """Run a program in a process of its own; return what it prints."""
    imports = (
        "import os; from splitformer.serving.layout import cores_of;"
        "from splitformer.serving.priority import give_way, session, take_place;"
    )
    done = subprocess.run(
        [sys.executable, "-c", imports + program],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=start_new_session,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return done.stdout

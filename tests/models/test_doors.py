"""Commands end with one sentence and the exit code that shells expect."""

import contextlib
import io
import os
import signal
import time

import pytest

from osdtw_models.doors import run_door


@pytest.fixture(autouse=True)
def interruptible():
    """Shells let what runs in their background ignore Ctrl-C, tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("hint", [None, "go on like this."])
def test_a_signal_ends_the_work_and_cleans_up(number, code, hint, capsys):
    cleaned = []

    def act(arguments):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt as stop:
            if hint:
                stop.add_note(hint)
            raise
        finally:
            cleaned.append(arguments)

    assert run_door("osdtw-x", act, ["a"]) == code
    assert cleaned == [["a"]]
    assert capsys.readouterr().err == f"osdtw-x: stopped; {hint or 'what was saved is kept.'}\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_foreign_code_takes_for_a_mistake_ends_the_work_too(number, code, capsys):
    """As torch does while it asks Python how long a sequence is."""

    def act(arguments):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt:
            error = ValueError("could not determine the shape")
            error.add_note("go on like this.")
            raise error from None

    assert run_door("osdtw-x", act, []) == code
    assert capsys.readouterr().err == "osdtw-x: stopped; go on like this.\n"
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_second_sigterm_does_not_interrupt_who_cleans_up(capsys):
    cleaned = []

    def act(arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            cleaned.append(arguments)

    assert run_door("osdtw-x", act, []) == 143
    assert cleaned == [[]]


def test_a_signal_that_foreign_code_drops_does_not_keep_the_next_one_out():
    def act(arguments):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    assert run_door("osdtw-x", act, []) == 143


def test_somebody_elses_handler_stays():
    def other(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, other)
    try:
        seen = []
        assert run_door("osdtw-x", lambda _: seen.append(signal.getsignal(signal.SIGTERM)), []) == 0
        assert seen == [other]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_letters_that_the_console_lacks_are_spelt_out(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", console)
    assert run_door("prog", lambda _: print("\u4e2d.png"), []) == 0
    console.flush()
    assert console.buffer.getvalue().strip() == b"\\u4e2d.png"

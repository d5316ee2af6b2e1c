"""Keys come one by one, and the terminal is left as it was."""

from __future__ import annotations

import os
import pty
import termios

import pytest

from bbi_lightning.cli.live.keys import Keys, NoKeys


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    for descriptor in (ours, theirs):
        try:
            os.close(descriptor)
        except OSError:
            continue


def all_keys(keys: Keys) -> list[str]:
    found = []
    while (key := keys.next(0.1)) is not None:
        found.append(key)
    return found


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"sS/", ["s", "S", "/"]),
        (b"\r\x7f\n\x08", ["enter", "backspace", "enter", "backspace"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["page up", "page down", "home", "end"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[15~q", ["unknown", "q"]),
        ("é".encode(), ["é"]),
    ],
)
def test_what_is_pressed_is_named(terminal, sent, keys):
    ours, theirs = terminal
    with Keys(theirs) as pressed:
        os.write(ours, sent)
        assert all_keys(pressed) == keys


def test_a_sequence_that_arrives_in_two_parts_is_one_key(terminal):
    ours, theirs = terminal
    with Keys(theirs) as pressed:
        os.write(ours, b"\x1b")
        os.write(ours, b"[A")
        assert pressed.next(1.0) == "up"


def test_nobody_presses(terminal):
    with Keys(terminal[1]) as pressed:
        assert pressed.next(0.01) is None
    assert NoKeys().next(0.01) is None


def test_the_terminal_is_left_as_it_was_even_after_an_error(terminal):
    theirs = terminal[1]
    before = termios.tcgetattr(theirs)

    def fails_among_keys() -> None:
        with Keys(theirs):
            assert termios.tcgetattr(theirs)[3] & termios.ECHO == 0
            assert termios.tcgetattr(theirs)[3] & termios.ISIG  # Ctrl-C stays a signal
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails_among_keys()
    assert termios.tcgetattr(theirs) == before


def test_a_terminal_that_hangs_up_ends_it(terminal):
    ours, theirs = terminal
    with Keys(theirs) as pressed:
        os.close(ours)
        assert pressed.next(1.0) == "end of input"
        os.close(theirs)

"""Signals only leave a note."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from bbi_lightning.training import interrupts


@pytest.mark.parametrize("number", interrupts.STOPPING)
def test_signal_is_noted_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in interrupts.STOPPING]
    with interrupts.listening():
        assert interrupts.received() is None
        os.kill(os.getpid(), number)
        assert interrupts.received() is number
    assert [signal.getsignal(n) for n in interrupts.STOPPING] == before
    with interrupts.listening():
        assert interrupts.received() is None


def test_second_ctrl_c_means_now() -> None:
    with interrupts.listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_nested_listening_keeps_the_note() -> None:
    with interrupts.listening():
        with interrupts.listening():
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.received() is signal.SIGTERM
        with interrupts.listening():
            assert interrupts.received() is signal.SIGTERM


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.listening():
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.received() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_cannot_listen_and_need_not() -> None:
    errors: list[BaseException] = []

    def listen() -> None:
        try:
            with interrupts.listening():
                interrupts.listen()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert errors == []


def test_exit_codes_are_those_a_shell_expects() -> None:
    assert interrupts.exit_code(signal.SIGINT) == 130
    assert interrupts.exit_code(signal.SIGTERM) == 143

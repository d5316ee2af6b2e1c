"""Signals only leave a note."""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import pytorch_lightning as pl
from torch import nn

from bbi_lightning.training import interrupts
from bbi_lightning.training.classification import Classification
from training.reference import OPTIMIZERS, bare_trainer, batches, loader, network


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
    assert interrupts.exit_code(interrupts.TIME_LIMIT) == 75
    assert len({interrupts.exit_code(cause) for cause in (*interrupts.STOPPING, interrupts.TIME_LIMIT)}) == 5


def test_what_another_rank_was_asked_counts_here_but_not_before_what_this_one_was() -> None:
    with interrupts.listening():
        interrupts.heed(interrupts.TIME_LIMIT)
        assert interrupts.received() is interrupts.TIME_LIMIT
        interrupts.heed(signal.SIGTERM)
        assert interrupts.received() is interrupts.TIME_LIMIT
    with interrupts.listening():
        assert interrupts.received() is None


def test_the_first_signal_is_the_cause_unless_somebody_sits_at_the_keyboard() -> None:
    with interrupts.listening():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert interrupts.received() is signal.SIGUSR1
        os.kill(os.getpid(), signal.SIGINT)  # the first Ctrl-C, however many signals there were
        assert interrupts.received() is signal.SIGINT
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.received() is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_every_signal_arrives_in_the_pipe_even_while_the_main_thread_runs_no_python() -> None:
    read: list[bytes] = []

    def in_the_middle_of_it(pipe: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        select.select([pipe], [], [], 10)
        read.append(os.read(pipe, 100))
        mutex_unlock(lock)

    assert interrupts.arrivals() is None
    with interrupts.listening():
        pipe = interrupts.arrivals()
        assert pipe is not None
        lock = ctypes.create_string_buffer(64)
        library = ctypes.CDLL(None)
        mutex_lock, mutex_unlock = library.pthread_mutex_lock, library.pthread_mutex_unlock
        mutex_lock(lock)
        thread = threading.Thread(target=in_the_middle_of_it, args=(pipe,))
        thread.start()
        mutex_lock(lock)  # until the other thread has read the signal; no handler runs before
        thread.join()
        assert read == [bytes([signal.SIGTERM])]
        assert interrupts.received() is signal.SIGTERM
    assert interrupts.arrivals() is None


def test_another_ones_wakeup_descriptor_is_put_back() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    try:
        with interrupts.listening():
            pass
        assert signal.set_wakeup_fd(before) == writing
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def test_signals_of_an_earlier_time_do_not_arrive_again() -> None:
    pipes = set()
    for _ in range(2):
        with interrupts.listening():
            pipe = interrupts.arrivals()
            assert pipe is not None
            assert select.select([pipe], [], [], 0)[0] == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert select.select([pipe], [], [], 10)[0] == [pipe]
            pipes.add(pipe)
    assert len(pipes) == 1
    os.fstat(pipes.pop())  # open: whoever still waits there must not read another file


def test_many_more_signals_than_the_pipe_can_hold_do_no_harm() -> None:
    with interrupts.listening():
        for _ in range(70_000):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupts.received() is signal.SIGUSR1


@pytest.fixture
def deaf_to_the_end_of_children() -> Iterator[None]:
    """torch's data loaders leave a handler behind: then a child's end is a signal of the parent's own."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("deaf_to_the_end_of_children")
def test_signals_to_a_forked_child_are_not_its_parents() -> None:
    with interrupts.listening():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0 if interrupts.received() is signal.SIGTERM and interrupts.arrivals() is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert interrupts.received() is None
        pipe = interrupts.arrivals()
        assert pipe is not None
        assert select.select([pipe], [], [], 0.2)[0] == []


def test_the_attempt_begins_with_the_outermost_listening() -> None:
    before = time.monotonic()
    with interrupts.listening():
        since = interrupts.listening_since()
        assert since is not None
        assert before <= since <= time.monotonic()
        with interrupts.listening():
            assert interrupts.listening_since() == since
    with interrupts.listening():
        assert interrupts.listening_since() != since


@pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`", "ignore:.*does not have many workers")
def test_lightning_leaves_the_handlers_alone_when_told_to() -> None:
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            seen.append([signal.getsignal(number) for number in interrupts.STOPPING])

    trainer = bare_trainer(callbacks=[Look()])
    module = Classification(network(), nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], num_classes=3)
    module.double()
    with interrupts.listening():
        interrupts.keep_from_lightning(trainer)
        ours = [signal.getsignal(number) for number in interrupts.STOPPING]
        trainer.fit(module, loader(batches(2)))
        assert [signal.getsignal(number) for number in interrupts.STOPPING] == ours
    assert seen
    assert all(handlers == ours for handlers in seen)


IMPORTING = """
import sys
from bbi_lightning.training import interrupts
with interrupts.listening():
    print("listening", flush=True)
    import torch, pytorch_lightning, torchvision, hydra
    from bbi_lightning.training import run
    cause = interrupts.received()
    print(cause.name, flush=True)
sys.exit(interrupts.exit_code(cause))
"""


@pytest.mark.slow
def test_a_storm_of_signals_during_the_imports_is_survived_and_noted() -> None:
    process = subprocess.Popen([sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    sent = 0
    # of several that wait the lowest comes first
    numbers = itertools.cycle((signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM))
    while not select.select([process.stdout], [], [], 0.003)[0]:
        process.send_signal(next(numbers))
        sent += 1
    out, _ = process.communicate(timeout=60)
    assert sent > 100  # else there was no storm
    assert out == "SIGUSR1\n"
    assert process.returncode == 128 + signal.SIGUSR1

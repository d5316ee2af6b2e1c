"""What data workers do about signals: those that ask a run to stop are the training process's business.

Clusters send a signal to all processes of a job at once. A worker that died of it would take the training
process along, in the middle of the step after which it wanted to save.
"""

from __future__ import annotations

import os
import signal
import threading


def heed_only_the_parent(worker_id: int) -> None:
    """A `worker_init_fn`: ignore what asks a run to stop, and SIGTERM unless the training process sends it.

    Args:
        worker_id: number of the worker; all are alike.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # Only who waits for a signal is told who sent it. Threads of later, say the queue's, block it, too.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_wait_for_the_parent, name="parent-watch", daemon=True).start()


def _wait_for_the_parent() -> None:
    """The training process terminates workers that do not end when told to."""
    if not hasattr(signal, "sigwaitinfo"):  # macOS: better deaf than dead
        return
    while True:
        if signal.sigwaitinfo([signal.SIGTERM]).si_pid == os.getppid():
            os._exit(0)

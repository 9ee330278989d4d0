"""Ctrl-C, SIGTERM and a closed terminal: how they end a command, and how they are deferred."""

import contextlib
import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

HAS_MASK = hasattr(signal, "pthread_sigmask")  # not on Windows
# A process receives SIGHUP when its terminal is closed. Windows does not have this signal.
NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupted(KeyboardInterrupt):
    """The exception that `raise_interrupts` raises.

    Parameters
    ----------
    number : int
        Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_status(error: BaseException | None) -> int:
    """128 + the number of the signal that caused `error`; 1 if none did."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    if error is None:
        return 1
    return 128 + getattr(error, "number", signal.SIGINT)


@contextlib.contextmanager
def raise_interrupts() -> Iterator[None]:
    """Inside the block, Ctrl-C, SIGTERM and SIGHUP raise `Interrupted`, but only one at a time.

    While an `Interrupted` is being handled, which may save hours of training, further signals have
    no effect. A signal that was already ignored stays ignored, such as SIGHUP under `nohup`.
    """
    handled: list[weakref.ref[Interrupted]] = []

    def interrupt(number: int, frame: Any) -> None:
        if handled and handled[-1]() is not None:
            gc.collect()  # only a reference cycle may still contain it
        if handled and handled[-1]() is not None:
            return
        error = Interrupted(number)
        handled[:] = [weakref.ref(error)]
        try:
            raise error
        finally:
            del error  # otherwise this frame and its exception would refer to each other

    with _handlers(interrupt):
        yield


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Inside the block, Ctrl-C, SIGTERM and SIGHUP are deferred; the first is raised at its end.

    Child processes started inside the block always ignore Ctrl-C. A terminal sends it to them and
    to their parent, and the parent decides what happens to them.
    """
    held: list[int] = []
    with _handlers(lambda number, frame: held.append(number)) as active:
        # Children inherit the mask. The handler receives the signals of other threads.
        mask = (
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT} & active) if HAS_MASK else ()
        )
        try:
            yield
        finally:
            if HAS_MASK:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if held:
        signal.raise_signal(held[0])


@contextlib.contextmanager
def _handlers(handler: Callable[[int, Any], None]) -> Iterator[set[int]]:
    """Handle signals by `handler` inside the block, and yield those that were not ignored before.

    Python allows this only in the main thread; in another thread, nothing is changed.
    """
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                # It is None for a handler that was not installed from Python and can't be restored.
                if (old := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    before[number] = old
                    signal.signal(number, handler)
        yield set(before)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def exit_on_interrupt(message: str = "") -> None:
    """From now on, Ctrl-C ends the process at once, with `message` on stderr and status 130.

    It is meant for the time before and after a command works, when there is nothing to save.
    """

    def leave(number: int, frame: Any) -> None:
        with contextlib.suppress(OSError):
            os.write(2, message.encode())
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # background jobs ignore it
        signal.signal(signal.SIGINT, leave)


# `python -m minirl` imports the package before `__main__`. Importing takes most of the time until a
# command works, and Ctrl-C during it would print a traceback, so the handler is installed here.
if sys.argv[:1] == ["-m"] and {"minirl", "-mminirl", "minirl.__main__"} & set(sys.orig_argv):
    exit_on_interrupt("minirl: interrupted\n")

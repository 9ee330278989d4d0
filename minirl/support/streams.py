"""Standard output and standard error that cannot stop a command before its results are saved."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class LastingStream:
    """A text stream that stores its first error in `error` instead of raising it.

    After an error, for example because the reader of a pipe has ended (`| head -1`), text that is
    written is dropped. A character that the stream's encoding lacks becomes a question mark.

    Parameters
    ----------
    stream : text stream
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with self._keeping_errors():
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._keeping_errors():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            # The text that is still in the stream's buffer is dropped, also when Python exits.
            with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())


@contextlib.contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Replace `sys.stdout` (returned) and `sys.stderr` by `LastingStream` inside the block.

    A stream that was closed before Python started (`>&-`) is replaced by one without a reader.
    """
    with contextlib.ExitStack() as stack:
        streams = [
            LastingStream(stack.enter_context(_nowhere()) if stream is None else stream)
            for stream in (sys.stdout, sys.stderr)
        ]
        stack.enter_context(contextlib.redirect_stdout(streams[0]))
        stack.enter_context(contextlib.redirect_stderr(streams[1]))
        try:
            yield streams[0]
        finally:
            for stream in streams:
                stream.flush()


def _nowhere() -> TextIO:
    """A stream without a reader. Its descriptor is usually the one that was closed.

    Otherwise another file could get this number and receive the output of a child process.
    """
    stream = open(os.devnull, "w")  # noqa: SIM115  # the caller closes it
    os.set_inheritable(stream.fileno(), True)
    return stream

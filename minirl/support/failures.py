"""Exceptions in the code of a user, as one line: their class, their message and their place."""

import os
import re
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

PACKAGE = str(Path(__file__).parents[1]) + os.sep
LIBRARIES = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
FRAME = re.compile(r'^ *File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)$', re.M)


def describe_error(error: BaseException) -> str:
    """Class, message and the user's line: `KeyError: 'door' (maze.py, line 12, in step)`.

    The place is omitted if only minirl's own code was running. For an exception in a worker of an
    `AsyncVectorEnv`, class, message and line are those in the worker.
    """
    remote = _worker_error(error)
    kind, value, text = remote if remote else (type(error), error, _formatted(error))
    message = f"{kind.__name__}: {value}" if str(value) else kind.__name__
    frames = [match.groups() for match in FRAME.finditer(text)]
    outside = [frame for frame in frames if not frame[0].startswith((PACKAGE, "<frozen"))]
    # The file of the user, not the library that it called; if there is none, the library.
    of_user = [frame for frame in outside if not frame[0].startswith(LIBRARIES)]
    for file, line, function in (of_user or outside)[-1:]:
        message += f" ({file}, line {line}, in {function})"
    return " ".join(message.split())


def raised_by_minirl(error: BaseException) -> bool:
    """Whether minirl itself rejected an argument, and not the code of a user failed."""
    frames = traceback.extract_tb(error.__traceback__)
    in_package = bool(frames) and frames[-1].filename.startswith(PACKAGE)
    return in_package and isinstance(error, ValueError | KeyError)


def raised_by_user(error: BaseException) -> bool:
    """Whether the traceback contains code that belongs neither to minirl nor to a library."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not all(file.startswith((PACKAGE, *LIBRARIES, "<string>", "<frozen")) for file in files)


def environment_index(error: BaseException) -> int | None:
    """Index of the environment of a vector environment that raised; None if it is not known."""
    for _, name, variables in _gymnasium_frames(error):
        index = variables.get("index" if name == "_raise_if_errors" else "i")
        if isinstance(index, int):
            return index
    return None


def _formatted(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__))


def _gymnasium_frames(error: BaseException) -> list[tuple[str, str, dict[str, object]]]:
    """File, function and local variables of Gymnasium's vector environments in the traceback."""
    frames = []
    link: TracebackType | None = error.__traceback__
    while link is not None:
        code = link.tb_frame.f_code
        if code.co_filename.endswith(("sync_vector_env.py", "async_vector_env.py")):
            frames.append((code.co_filename, code.co_name, link.tb_frame.f_locals))
        link = link.tb_next
    return frames


def _worker_error(error: BaseException) -> tuple[type, object, str] | None:
    """Class, value and traceback text of an exception, as the worker sent them.

    The exception in this process does not have the worker's traceback. It may even be a different
    exception, because Gymnasium calls the class with the value, which some classes do not accept.
    """
    for _, name, variables in _gymnasium_frames(error):
        kind, text = variables.get("exctype"), variables.get("trace")
        if name == "_raise_if_errors" and isinstance(kind, type) and isinstance(text, str):
            return kind, variables.get("value"), text
    return None

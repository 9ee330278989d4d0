"""Output that nobody reads, that is closed or that a terminal can't show: no result is lost."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import QUICK, ROOT, SAVED, names_in

from minirl.__main__ import main
from minirl.support.serialization import load_policy
from minirl.support.streams import LastingStream, lasting_streams

TRAIN = ["train", "CartPole-v1", "--total-steps", "200", *QUICK]
CHAIN = ["rlhf", "--methods", "best-of-n", "--seeds", "1", "--labels", "300"]


class Failing(io.StringIO):
    """A stream whose writes fail from the second one on."""

    def __init__(self, error):
        super().__init__()
        self.error_raised, self.calls = error, 0

    def write(self, text):
        self.calls += 1
        if self.calls > 1:
            raise self.error_raised
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_an_error_waits_and_what_follows_is_dropped(number):
    error = OSError(number, os.strerror(number))
    stream = LastingStream(Failing(error))
    assert stream.write("one\n") == 4
    assert stream.error is None
    assert stream.write("two\n") == 4
    stream.write("three\n")
    stream.flush()
    assert stream.error is error
    assert stream.getvalue() == "one\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"1 ? ?"), ("latin-1", b"1 \xb7 ?"), ("utf-8", b"1 \xc2\xb7 ?")],
)
def test_what_an_encoding_lacks_becomes_a_question_mark(encoding, shown):
    written = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(written, encoding=encoding))
    stream.write("1 \u00b7 \udcff")  # the last one is a byte of a file name that is not UTF-8
    stream.flush()
    assert written.getvalue() == shown
    assert stream.encoding == encoding


def test_streams_are_replaced_inside_the_block_only(capsys):
    before = sys.stdout, sys.stderr
    with lasting_streams() as output:
        assert sys.stdout is output
        print("shown")
        print("warned", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("shown\n", "warned\n")


def test_a_closed_stream_is_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_streams() as output:
        print("lost")
        assert output.isatty() is False
    assert output.error is None


# ---------------------------------------------------------------- commands


def shell(line, **variables):
    """Status of the command and of the shell's line, and what stood on stderr."""
    python = f"'{sys.executable}' -m minirl"
    found = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('minirl', python, 1)}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    return found.returncode, found.stdout, found.stderr


def quoted(words):
    return " ".join(f"'{word}'" for word in words)


@pytest.mark.skipif(os.name != "posix", reason="a shell")
@pytest.mark.parametrize("redirection", ["| true", "2>&1 | true", "2>&-", "<&- >&- 2>&-"])
def test_training_is_saved_wherever_the_output_goes(redirection, tmp_path):
    folder = tmp_path / "results"
    status, out, err = shell(f"minirl {quoted(TRAIN)} --out '{folder}' {redirection}")
    assert status == 0, err
    assert "Error" not in out + err
    assert names_in(folder) == SAVED
    load_policy(folder / "policy.npz")


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_a_comparison_is_saved_although_output_is_closed(tmp_path):
    words = ["compare", "CartPole-v1", "--algorithms", "trpo", "ppo", "--seeds", "1"]
    words += ["--total-steps", "64"]
    status, _, err = shell(f"minirl {quoted(words)} --out '{tmp_path}' >&- 2>&-")
    assert status == 0, err
    assert {"curves.png", "runs.csv", "summary.json"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_a_chain_goes_on_when_its_reader_has_left_and_is_shown_in_ascii(tmp_path):
    line = f"minirl {quoted(CHAIN)} --out '{tmp_path}' | head -1"
    status, out, err = shell(line, PYTHONIOENCODING="ascii:strict", PYTHONUNBUFFERED="1")
    assert status == 0, err
    assert out.startswith("1. Supervised fine-tuning")
    assert "Error" not in err
    assert {"frontier.png", "samples.md", "summary.json"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_output_that_could_not_be_written_is_an_error_after_everything_is_saved(tmp_path):
    status, _, err = shell(f"minirl {quoted(TRAIN)} --out '{tmp_path}' > /dev/full")
    assert status == 1
    assert "minirl: [Errno 28] No space left on device\n" in err
    assert "Traceback" not in err
    assert names_in(tmp_path) == SAVED


def test_help_is_ascii(capsys):
    for command in ([], ["train"], ["compare"], ["rlhf"], ["evaluate"], ["watch"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
    assert capsys.readouterr().out.isascii()

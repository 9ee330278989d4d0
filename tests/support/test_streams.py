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
COMPARE = ["compare", "CartPole-v1", "--algorithms", "trpo", "--seeds", "1", "--total-steps", "64"]
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
        assert not output.isatty()
    assert output.error is None


POSIX = pytest.mark.skipif(os.name != "posix", reason="a shell")


def shell(words, rest, folder, **variables):
    """The status of the command, or of the shell's line, and what it wrote to both streams."""
    quoted = " ".join(f"'{word}'" for word in [sys.executable, "-m", "minirl", *words])
    found = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {quoted} --out '{folder}' {rest}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    return found.returncode, found.stdout, found.stderr


@POSIX
@pytest.mark.parametrize(
    ("words", "rest"),
    [(TRAIN, rest) for rest in ("| true", "2>&1 | true", "2>&-", "<&- >&- 2>&-")]
    + [(COMPARE, ">&- 2>&-")],
)
def test_results_are_saved_wherever_the_output_goes(words, rest, tmp_path):
    status, out, err = shell(words, rest, tmp_path / "results")
    assert status == 0, err
    assert "Error" not in out + err
    if words is TRAIN:
        assert names_in(tmp_path / "results") == SAVED
        load_policy(tmp_path / "results" / "policy.npz")
    else:
        assert {"curves.png", "runs.csv", "summary.json"} <= set(names_in(tmp_path / "results"))


@POSIX
def test_a_chain_goes_on_when_its_reader_has_left_and_is_shown_in_ascii(tmp_path):
    variables = {"PYTHONIOENCODING": "ascii:strict", "PYTHONUNBUFFERED": "1"}
    status, out, err = shell(CHAIN, "| head -1", tmp_path, **variables)
    assert status == 0, err
    assert out.startswith("1. Supervised fine-tuning")
    assert "Error" not in err
    assert {"frontier.png", "samples.md", "summary.json"} <= set(names_in(tmp_path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_output_that_could_not_be_written_is_an_error_after_everything_is_saved(tmp_path):
    status, _, err = shell(TRAIN, "> /dev/full", tmp_path)
    assert status == 1
    assert "minirl: [Errno 28] No space left on device\n" in err
    assert "Traceback" not in err
    assert names_in(tmp_path) == SAVED


def test_help_is_ascii(capsys):
    for command in ([], ["train"], ["compare"], ["rlhf"], ["evaluate"], ["watch"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
    assert capsys.readouterr().out.isascii()

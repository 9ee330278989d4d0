import ctypes
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from minirl.support.machine import keep_freed_memory, one_core


def blas_threads():
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


def test_one_thread_inside_and_what_was_before_afterwards():
    with threadpool_limits(2):
        before = blas_threads()
        with one_core():
            inside = blas_threads()
        after = blas_threads()
    assert set(inside) == {1}
    assert before == after == [2] * len(before)


def test_a_second_thread_is_refused_while_one_is_inside():
    """The first to leave would lift the limit for the other, and change its last bits."""

    def enter():
        with one_core(), one_core():  # evaluation inside of training, say
            return blas_threads()

    with ThreadPoolExecutor(1) as other:
        with one_core():
            with pytest.raises(RuntimeError, match="another thread.*processes instead of threads"):
                other.submit(enter).result()
            assert set(blas_threads()) == {1}
        assert set(other.submit(enter).result()) == {1}  # one after the other is fine
    with one_core():
        pass


COUNT_FAULTS = """
import resource
import numpy as np
from minirl.support.machine import one_core

def faults():
    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(2**18)  # two megabytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began

before = faults()
with one_core():
    faults()
    print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_arrays_are_kept_even_where_the_environment_forbids_it():
    told = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", COUNT_FAULTS]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
    before, inside = map(int, done.stdout.split())
    assert before > 50 * 100  # of 512 pages each
    assert inside < 50


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_alone(error, monkeypatch):
    def missing(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()

import dataclasses
import functools
import hashlib
import json
import os
import pickle
import platform
import shutil
import stat
import subprocess
import tracemalloc
import warnings
import zipfile
from dataclasses import astuple, dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from minirl.distributions import Categorical, DiagonalGaussian
from minirl.experiments.evaluation import evaluate
from minirl.networks import MLP, Features, Linear, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.support import serialization
from minirl.support.serialization import (
    PolicyFileError,
    csv_text,
    describe,
    first_difference,
    load_policy,
    prepare_folder,
    save_arrays,
    save_policy,
    versions,
    write_atomically,
    write_text,
)

RNG = np.random.default_rng(5)
STATISTICS = RunningMoments(1234, RNG.normal(size=3), RNG.uniform(0.5, 2.0, size=3))
CARTPOLE_STATISTICS = RunningMoments(50, RNG.normal(size=4), RNG.uniform(0.5, 2.0, size=4))


def random_policy(network, distribution, statistics=None):
    theta = RNG.normal(size=network.size).astype(network.dtype)
    return Policy(network, distribution, theta, statistics)


CARTPOLE, PENDULUM = MLP((4, 8, 2)), MLP((3, 8, 1))
POLICIES = {
    # policy, and an environment that it can act in
    name: (random_policy(*arguments), env)
    for name, env, *arguments in [
        ("MLP", "CartPole-v1", CARTPOLE, Categorical),
        ("MLP float64", "CartPole-v1", MLP((4, 8, 2), 0.01, "float64"), Categorical),
        ("MLP with statistics", "CartPole-v1", CARTPOLE, Categorical, CARTPOLE_STATISTICS),
        ("MLP without hidden layers", "CartPole-v1", MLP((4, 2)), Categorical),
        ("Table", "FrozenLake-v1", Table(16, 4), Categorical),
        ("Features", "FrozenLake-v1", Features(np.eye(16)[:, :5], MLP((5, 3, 4))), Categorical),
        ("log std", "Pendulum-v1", WithLogStd(PENDULUM, 1, -0.5), DiagonalGaussian),
        ("statistics", "Pendulum-v1", WithLogStd(PENDULUM, 1), DiagonalGaussian, STATISTICS),
        ("bound", "Pendulum-v1", WithLogStd(PENDULUM, 1, 0.0, -20.0), DiagonalGaussian),
        ("Linear", "minirl/LQR-v0", WithLogStd(Linear(2, 1), 1), DiagonalGaussian),
    ]
}


class OwnNetwork(Table):
    pass


def small_policy():
    return Policy(Table(2, 2), Categorical, np.array([0.0, 1.0, 2.0, 3.0]))


@pytest.mark.parametrize("name", POLICIES)
def test_a_loaded_policy_is_the_saved_one(name, tmp_path):
    policy, env = POLICIES[name]
    description = {"env": env, "seed": 3, "nested": {"list": [1, None, True, 0.1]}}
    save_policy(policy, tmp_path / "policy.npz", description)
    loaded, stored = load_policy(tmp_path / "policy.npz")

    assert stored == description
    assert loaded.network == policy.network
    assert loaded.distribution is policy.distribution
    assert loaded.parameters.dtype == policy.parameters.dtype
    np.testing.assert_array_equal(loaded.parameters, policy.parameters)
    moments = [found.observation_statistics for found in (loaded, policy)]
    if moments[1] is None:
        assert moments[0] is None
    else:  # they come back, and go on counting
        np.testing.assert_equal(*map(astuple, moments))
        observations = RNG.normal(size=(20, len(moments[1].mean)))
        np.testing.assert_equal(*(astuple(found.update(observations)) for found in moments))
    for greedy in (True, False):
        before = evaluate(env, policy, episodes=3, seed=11, greedy=greedy)
        after = evaluate(env, loaded, episodes=3, seed=11, greedy=greedy)
        np.testing.assert_array_equal(after.returns, before.returns)
        np.testing.assert_array_equal(after.lengths, before.lengths)


def test_the_file_has_the_name_that_is_given_and_holds_the_versions(tmp_path):
    save_policy(small_policy(), tmp_path / "agent", {})  # np.savez would append .npz
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
    load_policy(str(tmp_path / "agent"))
    with np.load(tmp_path / "agent") as file:
        assert json.loads(str(file["header"]))["versions"] == versions()
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        load_policy(tmp_path / "nowhere.npz")


def refused(path):
    try:
        load_policy(path)
    except PolicyFileError as error:
        message = str(error)
    else:
        pytest.fail("a damaged policy was loaded")
    assert str(path) in message
    assert "\n" not in message
    assert "load it unsafely" not in message  # NumPy's advice is none for strangers' files
    return message


@pytest.mark.parametrize("content", [b"", b"theta = 3\n" * 50, b"\x93NUMPY\x01\x00" + bytes(90)])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "policy.npz"
    path.write_bytes(content)
    assert "does not begin" in refused(path)


def test_another_length_is_noticed(tmp_path):
    path = tmp_path / "policy.npz"
    save_policy(small_policy(), path, {})
    whole = path.read_bytes()
    changes = [whole + whole]
    for addition in (b"\0", b"x" * 64, b"PK\x05\x06" + bytes(18)):
        changes += [whole + addition, addition + whole]
    for changed in changes:
        path.write_bytes(changed)
        refused(path)
    path.write_bytes(whole)
    for length in reversed(range(len(whole))):
        os.truncate(path, length)
        refused(path)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "policy.npz"
    save_policy(random_policy(Table(2, 2), Categorical), path, {"env": "x"})
    whole = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for position, byte in enumerate(whole):
            for bit in range(8):
                file.seek(position)
                file.write(bytes([byte ^ 1 << bit]))
                refused(path)
            file.seek(position)
            file.write(bytes([byte]))
    load_policy(path)  # negative control


def test_what_is_no_regular_file_is_refused_unread(tmp_path):
    assert "not a regular file" in refused(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refused(tmp_path / "pipe")  # reading it would never end
    if Path("/dev/zero").exists():
        assert "not a regular file" in refused(Path("/dev/zero"))


def test_a_foreign_archive(tmp_path):
    path = tmp_path / "policy.npz"
    np.savez(path, weights=np.arange(3.0))
    assert "does not end with the SHA-256 digest" in refused(path)
    save_arrays(path, "another", {}, {})
    message = refused(path)
    assert "its format is 'another'; this version of minirl reads 'minirl-policy-2'" in message
    for header in (np.array("not json"), np.arange(3), np.array("[]"), np.array("{}")):
        np.savez(path, header=header, parameters=np.zeros(3))
        sealed(path)
        refused(path)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


def sealed(path):
    """Give an archive the digest of its contents, as somebody would who wants to deceive us."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = bytes(64)
    content = path.read_bytes()[:-64]
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    return path


def members(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_nothing_is_ever_unpickled(tmp_path):
    marker = str(tmp_path / "exploded")
    bomb = np.array([Bomb(marker)], dtype=object)
    path = tmp_path / "policy.npz"
    save_policy(small_policy(), path, {})
    header = str(members(path)["header"]).replace("<f8", "|O")
    np.savez(path, header=np.array(header), parameters=bomb)
    refused(sealed(path))
    np.savez(path, header=bomb, parameters=np.zeros(1))
    refused(sealed(path))
    path.write_bytes(pickle.dumps(Bomb(marker)))
    refused(path)
    assert not os.path.exists(marker)
    pickle.loads(path.read_bytes()).close()
    assert os.path.exists(marker)  # the bomb is real


def tampered(path, change=lambda header: None, policy=None, **arrays):
    """A saved policy with another header or other arrays, and right digest and layout."""
    save_policy(policy or small_policy(), path, {"env": "x"})
    content = members(path)
    header = json.loads(str(content.pop("header")))
    content.update(arrays)
    content = {name: array for name, array in content.items() if array is not None}
    header["arrays"] = {name: [item.dtype.str, item.shape] for name, item in content.items()}
    change(header)
    np.savez(path, header=np.array(json.dumps(header)), **content)
    return sealed(path)


@pytest.mark.parametrize("entry", ["network", "distribution", "settings", "format", "arrays"])
def test_a_header_that_lacks_an_entry(entry, tmp_path):
    load_policy(tampered(tmp_path / "policy.npz"))  # negative control: refused for the change alone
    message = refused(tampered(tmp_path / "policy.npz", lambda header: header.pop(entry)))
    assert entry == "format" or f"its header lacks '{entry}'" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"type": "Transformer"}}, "expected one of MLP"),
        ({"network": {"type": "MLP", "width": 3}}, "width"),
        ({"network": {"type": "MLP", "sizes": 3}}, ""),
        ({"network": {"type": "MLP", "sizes": [2, 10**9, 2]}}, ""),
        ({"network": {"type": "Table", "states": -1, "outputs": 2}}, ""),
        ({"network": {"type": "Table", "states": 3, "outputs": 2}}, ""),
        ({"network": {"type": "Table", "states": 2, "outputs": 2, "dtype": "int64"}}, ""),
        ({"network": {"type": "Table", "states": 2, "outputs": 2, "dtype": "<f8"}}, ""),
        ({"network": {"type": "Linear", "inputs": 2, "outputs": 3}}, ""),
        ({"network": "Table"}, ""),
        ({"distribution": ["Categorical"]}, ""),
        ({"distribution": "Cauchy"}, "'Cauchy', expected one of Categorical, DiagonalGaussian"),
        ({"format": ["x"]}, ""),
        ({"settings": []}, "its settings must be a dict, got []"),
        ({"settings": None}, "its settings must be a dict, got None"),
        ({"arrays": None}, ""),
        ({"arrays": {}}, ""),
        ({"arrays": {"parameters": ["<f8", [5]]}}, ""),
        ({"arrays": {"parameters": ["<f4", [4]]}}, ""),
        ({"arrays": {"parameters": ["<f8", [4]], "more": ["<f8", [4]]}}, ""),
    ],
)
def test_a_header_that_makes_no_sense(change, words, tmp_path):
    assert words in refused(tampered(tmp_path / "policy.npz", lambda header: header.update(change)))


NO_NUMBERS = [np.array([0, 1, bad, 2]) for bad in (np.nan, -np.inf)]
OF_A_TABLE = [
    ({"parameters": np.zeros(3)}, "shape (3,)"),
    ({"parameters": np.zeros((2, 2))}, "shape (2, 2)"),
    ({"parameters": np.zeros(4, np.float32)}, "type float32"),
    ({"parameters": np.zeros(4, ">f8")}, "type >f8"),
    ({"parameters": np.array(["a", "b", "c", "d"])}, "type <U1"),
    ({"parameters": NO_NUMBERS[0]}, "'parameters' has entries that are not f"),
    ({"parameters": NO_NUMBERS[1]}, "'parameters' has entries that are not f"),
    ({"parameters": None}, "its arrays are []"),
    ({"observation_mean": np.zeros(2)}, "its arrays are ['parameters', 'observation_mean']"),
    ({"more": np.zeros(2)}, "its arrays are ['parameters', 'more']"),
    ({"observation_count": np.array(2)}, "cannot have observation statistics"),
]
OF_STATISTICS = [
    ({"observation_count": None}, "its arrays are"),
    ({"observation_mean": None}, "its arrays are"),
    ({"observation_variance": None}, "its arrays are"),
    ({"observation_count": np.array([1, 2])}, "'observation_count' has type int64 and shape"),
    ({"observation_count": np.array(1.0)}, "'observation_count' has type float64"),
    ({"observation_count": np.array(-1)}, "'observation_count' has negative entries"),
    ({"observation_mean": np.zeros(3)}, "'observation_mean' has type float64 and shape (3,)"),
    ({"observation_mean": np.full(4, np.nan)}, "'observation_mean' has entries that are not"),
    ({"observation_mean": np.zeros(4, np.float32)}, "'observation_mean' has type float32"),
    ({"observation_variance": np.ones(())}, "'observation_variance' has type float64 and sh"),
    ({"observation_variance": np.array([1, 1, 1, np.inf])}, "are not finite"),
    ({"observation_variance": np.array([1, 1, 1, -1e-9])}, "has negative entries"),
]


@pytest.mark.parametrize(
    ("policy", "arrays", "reason"),
    [("Table", *row) for row in OF_A_TABLE] + [("MLP with statistics", *r) for r in OF_STATISTICS],
)
def test_arrays_that_make_no_sense(policy, arrays, reason, tmp_path):
    policy = small_policy() if policy == "Table" else POLICIES[policy][0]
    assert reason in refused(tampered(tmp_path / "policy.npz", policy=policy, **arrays))


def rearranged(path, change):
    save_policy(POLICIES["MLP with statistics"][0], path, {})
    with zipfile.ZipFile(path) as archive:
        content = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that occur twice
        for name, data in change(content):
            archive.writestr(name, data)
    return sealed(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: content[1:],
        lambda content: content[:1],
        lambda content: content[:-1],
        lambda content: content[:2],
        lambda content: [*content, content[1]],
        lambda content: [*content, ("more.npy", content[1][1])],
        lambda content: [*content, ("more.txt", b"text")],
        lambda content: [*content, ("folder/", b"")],
        lambda content: content[::-1],
        lambda content: [*content[:3], content[4], content[3]],
        lambda content: [(name[:-4], data) for name, data in content],
        lambda content: [(name, data[:-1]) for name, data in content],
        lambda content: [(name, data + b"\0") for name, data in content],
        lambda content: [*content[:-1], (content[-1][0], b"")],
    ],
)
def test_other_members_are_refused(change, tmp_path):
    load_policy(rearranged(tmp_path / "policy.npz", lambda content: content))
    refused(rearranged(tmp_path / "policy.npz", change))


def test_what_unpacks_to_128_megabytes_is_refused_before_memory_is_used(tmp_path):
    path = tmp_path / "policy.npz"
    save_policy(small_policy(), path, {})
    with zipfile.ZipFile(path) as archive:
        header, parameters = (archive.read(name) for name in archive.namelist())
    preamble = parameters[: -small_policy().parameters.nbytes]
    large = preamble.replace(b"(4,), }" + b" " * 7, b"(16777216,), }")
    assert len(large) == len(preamble)
    block = bytes(2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", header, zipfile.ZIP_STORED)
        with archive.open("parameters.npy", "w") as member:
            member.write(large)
            for _ in range(128):
                member.write(block)
    sealed(path)
    assert len(path.read_bytes()) < 2**18
    tracemalloc.start()
    message = refused(path)
    # An array of that shape whose entries are not there
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", header)
        archive.writestr("parameters.npy", large + parameters[len(preamble) :])
    refused(sealed(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "compressed" in message
    assert peak < 2**22


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """A small file whose directory lists the same million bytes a thousand times."""
    path = tmp_path / "policy.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", bytes(10**6))
        archive.filelist *= 1000
    sealed(path)
    assert len(path.read_bytes()) < 2 * 10**6
    assert "larger than the file" in refused(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parameters": np.array([0, 1, np.nan, 2])}, "'parameters' has entries that are not"),
        ({"parameters": np.zeros(3)}, "shape (3,)"),
        ({"parameters": np.zeros(4, np.float32)}, "type float32"),
        ({"observation_statistics": RunningMoments.empty((2,))}, "observation statistics"),
        (
            {"network": OwnNetwork(2, 2)},
            "one of MLP, Linear, Table, Features, WithLogStd, got OwnN",
        ),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(change, reason, tmp_path):
    policy = dataclasses.replace(small_policy(), **change)
    with pytest.raises(ValueError, match="policy cannot be saved") as caught:
        save_policy(policy, tmp_path / "policy.npz", {})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("description", [None, [], "x", {"a": object()}, {"a": np.arange(2)}])
def test_a_description_without_a_json_form_is_not_saved(description, tmp_path):
    with pytest.raises(ValueError, match="description must be a dict|JSON"):
        save_policy(small_policy(), tmp_path / "policy.npz", description)
    assert os.listdir(tmp_path) == []


def test_write_atomically_writes(tmp_path):
    """The target is untouched while the new content is written to a hidden neighbour of it."""
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"first"))

    def write(file):
        file.write(b"second")
        file.flush()
        assert path.read_bytes() == b"first"
        assert sorted(name[:6] for name in os.listdir(tmp_path)) == [".file.", "file"]

    with open(path, "rb") as reader:
        write_atomically(str(path), write)
        assert reader.read() == b"first"  # who reads the old file reads it to its end
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # colleagues may read it


def test_contents_are_on_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    sizes = []

    def fsync(descriptor):
        assert not (tmp_path / "text").exists()
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "text", "π ≥ 0\n")
    assert sizes == [9]
    assert (tmp_path / "text").read_bytes() == "π ≥ 0\n".encode()
    assert csv_text([["name", "score"], ["A, or so", 1.5]]) == 'name,score\n"A, or so",1.5\n'


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_writing_that_fails_midway_changes_and_leaves_nothing(error, tmp_path):
    def half(file):
        file.write(b"half")
        file.flush()
        raise error

    def tidied_up(file):
        next(path for path in tmp_path.iterdir() if path.name != "file").unlink()
        raise error

    path = tmp_path / "file"
    for write in (half, tidied_up):
        with pytest.raises(type(error)):
            write_atomically(path, write)
        assert os.listdir(tmp_path) == []
    path.write_bytes(b"what was there")
    with pytest.raises(type(error)):
        write_atomically(path, half)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"what was there"


@dataclass(frozen=True)
class Example:
    rate: object
    sizes: tuple = (3, 4)


def test_a_folder_is_made_or_named(tmp_path):
    folder = prepare_folder(str(tmp_path / "a" / "b"))
    assert prepare_folder(folder) == folder == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []
    with pytest.raises(ValueError, match="output folder must have a name, got ''"):
        prepare_folder("")
    (tmp_path / "file").write_text("")
    closed = [Path("/proc/self")] if Path("/proc/self").exists() else []
    for folder in (tmp_path / "file", tmp_path / "file" / "below", *closed):
        with pytest.raises(ValueError, match=f"output folder '{folder}' can't be written"):
            prepare_folder(folder)


class Own:
    def __init__(self, rate):
        self.rate = rate


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (
            {"a": Example(LinearSchedule(0.5)), 3: [True, None, "x", 1.5]},
            {
                "a": {
                    "type": "Example",
                    "rate": {"type": "LinearSchedule", "start": 0.5, "end": 0.0},
                    "sizes": [3, 4],
                },
                "3": [True, None, "x", 1.5],
            },
        ),
        ([np.float32(0.5), np.int64(3), np.float64(0.1), np.bool_(True)], [0.5, 3, 0.1, True]),
        ([1j, slice(2)], ["1j", "slice(None, 2, None)"]),  # what Python prints
        ([Own(0.5), Own(0.25)], [{"type": "Own", "rate": 0.5}, {"type": "Own", "rate": 0.25}]),
    ],
)
def test_describe_is_json_ready_complete_and_equal_for_equal_objects(value, described):
    assert json.loads(json.dumps(describe(value))) == described


def test_describe_names_functions_and_tells_partial_ones_apart():
    name = f"{prepare_folder.__module__}.prepare_folder"
    assert describe(prepare_folder) == name
    for folder in "34":
        described = describe(functools.partial(prepare_folder, folder))
        assert described == {"partial": name, "arguments": [folder]}
    keyword = describe(functools.partial(prepare_folder, folder="3"))
    assert keyword == {"partial": name, "arguments": [["folder", "3"]]}


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 2}, "a is 1 there, 2 here"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "a.b is [1] there, [2] here"),
        ({"a": 1, "b": 2}, {"a": 1}, "b is 2 there, None here"),
        ({"a": 1}, {"a": 1, "b": 2}, "b is None there, 2 here"),
        ({"a": {"b": 1}}, {"a": 3}, "a is {'b': 1} there, 3 here"),
        ({"a": 2, "b": 3}, {"b": 1, "a": 1}, "b is 3 there, 1 here"),  # in the wanted order
    ],
)
def test_first_difference(found, wanted, words):
    assert first_difference(found, wanted) == words


def test_versions_name_what_numbers_depend_on(monkeypatch):
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert {"minirl-numpy", "scipy", "gymnasium"} <= found.keys()
    json.dumps(found)

    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(serialization, "version", missing)
    assert versions().keys() - {"commit"} == {"python"}


def git(folder, *arguments):
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty folder that minirl takes for its own repository."""
    monkeypatch.setattr(serialization, "__file__", str(tmp_path / "minirl" / "support" / "x.py"))
    return tmp_path


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_minirls_own_repository_gives_the_commit_and_says_if_files_have_changed(package):
    assert "commit" not in versions()  # no repository
    git(package, "init", "-q")
    assert "commit" not in versions()  # none that has a commit, which is no error
    (package / "file").write_text("committed")
    git(package, "add", "file")
    git(package, "commit", "-q", "-m", "first")
    commit = git(package, "rev-parse", "HEAD")
    assert commit.startswith(versions()["commit"])
    assert len(versions()["commit"]) >= 7
    (package / "file").write_text("changed")
    assert versions()["commit"].endswith("-dirty")


def test_a_git_that_is_absent_or_does_not_answer_gives_no_commit(package, monkeypatch):
    """A repository on a drive that has gone: git hangs for as long as it may."""
    (package / ".git").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        assert "commit" not in versions()

    def hang(command, *, timeout=None, **options):
        assert timeout is not None, "git would be waited for for ever"
        assert timeout <= 10
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "commit" not in versions()

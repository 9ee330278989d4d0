"""Atomic writing of files, and `.npz` files of arrays with a digest of every bit."""

import contextlib
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minirl.distributions import Categorical, DiagonalGaussian
from minirl.networks import MLP, Features, Linear, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_instance

FORMAT = "minirl-policy-2"
DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256


class PolicyFileError(ValueError):
    """A file is not a policy that minirl saved."""


def write_atomically(path: Path | str, write: Callable[[BinaryIO], Any]) -> None:
    """Write a temporary file and rename it, so that `path` is either complete or unchanged.

    Parameters
    ----------
    write : callable
        Receives the open binary file.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # after a power failure, the file could be empty without this
        os.chmod(temporary, 0o644)  # with mkstemp's 0600, other users could not read the results
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write text atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""The rows as CSV text; the first row usually contains the names of the columns.

    >>> csv_text([["name", "score"], ["A, or so", 1.5]])
    'name,score\n"A, or so",1.5\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def prepare_folder(folder: Path | str) -> Path:
    """Create an output folder and check that files can be written to it.

    Raises
    ------
    ValueError
        If the folder can't be used; the message names the folder and the reason.
    """
    if not str(folder):
        raise ValueError("output folder must have a name, got ''")
    path = Path(folder)
    if path.is_file():
        raise ValueError(f"output folder {str(folder)!r} can't be written: it is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"output folder {str(folder)!r} can't be written: {error}") from error
    return path


def describe(value: Any) -> Any:
    """A JSON-ready form of a value; a dataclass becomes {"type": name, field: value, ...}."""
    if is_dataclass(value) and not isinstance(value, type):
        described = {item.name: describe(getattr(value, item.name)) for item in fields(value)}
        return {"type": type(value).__name__, **described}
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": list(value.shape), "dtype": value.dtype.str, "sha256": content}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        arguments = [*value.args, *value.keywords.items()]
        return {"partial": describe(value.func), "arguments": describe(arguments)}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "__dict__"):
        return {"type": type(value).__name__, **describe(vars(value))}
    return repr(value)


def first_difference(stored: Any, expected: Any, name: str = "") -> str | None:
    """The first difference between two JSON-ready values, in words; None if they are equal."""
    if isinstance(stored, dict) and isinstance(expected, dict):
        for key in dict.fromkeys([*expected, *stored]):
            path = f"{name}.{key}" if name else key
            difference = first_difference(stored.get(key), expected.get(key), path)
            if difference:
                return difference
        return None
    return None if stored == expected else f"{name} is {stored!r} there, {expected!r} here"


def versions() -> dict[str, str]:
    """Versions of Python, minirl, its numerical dependencies, and minirl's commit if known."""
    known = {"python": sys.version.split()[0]}
    for package in ("minirl-numpy", "numpy", "scipy", "gymnasium"):
        with contextlib.suppress(PackageNotFoundError):
            known[package] = version(package)
    root = Path(__file__).parents[2]
    # Only minirl's own repository: an installed copy may lie inside that of another project.
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            known["commit"] = subprocess.run(
                ["git", "-C", str(root), "describe", "--always", "--dirty"],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
    return known


@cache
def source_hash() -> str:
    """The first twelve hexadecimal digits of a hash of minirl's source: it identifies the code."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


NETWORKS = {kind.__name__: kind for kind in (MLP, Linear, Table, Features, WithLogStd)}
DISTRIBUTIONS = {kind.__name__: kind for kind in (Categorical, DiagonalGaussian)}


def _network_from(description: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    arguments = dict(description)
    kind = _kind_named(arguments.pop("type"), NETWORKS)
    for part in ("mean", "mlp"):
        if part in arguments:
            arguments[part] = _network_from(arguments[part], arrays)
    if "matrix" in arguments:
        arguments["matrix"] = arrays["features"]
    if "sizes" in arguments:
        arguments["sizes"] = tuple(arguments["sizes"])
    return kind(**arguments)


def _kind_named(name: Any, kinds: dict[str, Any]) -> Any:
    if name not in kinds:
        raise ValueError(f"its header names {name!r}, expected one of {', '.join(kinds)}")
    return kinds[name]


def save_arrays(
    path: Path | str, file_format: str, header: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Save a header and arrays as an `.npz` file in which `load_arrays` checks every bit.

    The array `header` of the file holds JSON text: `file_format`, the type and shape of every
    array, and the entries of `header`. The archive's comment, which is the end of the file, is the
    SHA-256 digest of all bytes before it. `numpy.load` can read such a file too.

    Raises
    ------
    ValueError
        If the header has no JSON form.
    """
    layout = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    try:
        text = json.dumps({"format": file_format, "arrays": layout, **header})
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the description saved with arrays must have a JSON form: {error}"
        ) from error
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(text), **dict(arrays))  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(DIGEST_LENGTH)  # its length is part of what the digest covers
    content = buffer.getvalue()[:-DIGEST_LENGTH]
    write_atomically(path, lambda file: file.write(content + _digest(content)))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def load_arrays(path: Path | str, file_format: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays that `save_arrays` saved.

    Nothing is unpickled or decompressed, so that the memory used is a small multiple of the file's
    size.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not exactly a file that `save_arrays` wrote in this format. The message names the
        check that failed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # reading a pipe or a device may never end
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        beginning = file.read(4)
        if beginning != b"PK\x03\x04":
            raise ValueError("it does not begin as an .npz file does")
        content = beginning + file.read()
    if content[-DIGEST_LENGTH:] != _digest(content[:-DIGEST_LENGTH]):
        raise ValueError("it does not end with the SHA-256 digest of its contents")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its members are compressed, but those of minirl's files are not")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("its members are larger than the file")
        stored = [(member.filename, archive.read(member)) for member in members]
    if not stored or stored[0][0] != "header.npy":
        raise ValueError("its first member is not header.npy")
    header = json.loads(str(_array_from(stored[0][1])))
    stored_format = header.pop("format")
    if stored_format != file_format:
        raise ValueError(
            f"its format is {stored_format!r}; this version of minirl reads {file_format!r}"
        )
    layout = header.pop("arrays")
    names, expected = [name for name, _ in stored[1:]], [f"{name}.npy" for name in layout]
    if names != expected:
        raise ValueError(f"it contains the arrays {names}, but its header names {expected}")
    arrays = {
        name: _array_from(member) for name, (_, member) in zip(layout, stored[1:], strict=True)
    }
    for name, array in arrays.items():
        if [array.dtype.str, list(array.shape)] != layout[name]:
            raise ValueError(
                f"its array {name!r} has type {array.dtype.str} and shape {array.shape}, but "
                f"its header says {layout[name]}"
            )
    return header, arrays


def _array_from(member: bytes) -> np.ndarray:
    """The array in the bytes of an `.npy` file, whose length must match its shape and type."""
    file = io.BytesIO(member)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array has .npy version {version}, not (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    # Not read_array, which allocates memory for the shape before it checks that the data exist.
    flat = np.frombuffer(member, dtype, offset=file.tell())
    return flat.reshape(shape).copy()


def _array_layout(network: Any, with_statistics: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each array in the file of a policy with this network."""
    layout: dict[str, tuple[str, tuple[int, ...]]] = {
        "parameters": (np.dtype(network.dtype).str, (network.size,))
    }
    if isinstance(network, Features):
        layout["features"] = (np.dtype(network.dtype).str, network.matrix.shape)
    if with_statistics:
        means = getattr(network, "mean", network)
        if isinstance(means, Table | Features):
            raise ValueError(
                f"a policy with a {type(means).__name__} network cannot have observation statistics"
            )
        inputs = means.sizes[0] if isinstance(means, MLP) else means.inputs
        layout["observation_count"] = (np.dtype(np.int64).str, ())
        layout["observation_mean"] = (np.dtype(np.float64).str, (inputs,))
        layout["observation_variance"] = (np.dtype(np.float64).str, (inputs,))
    return layout


def _require_arrays_fit(network: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless a policy with this network can have these arrays."""
    layout = _array_layout(network, "observation_count" in arrays)
    if list(arrays) != list(layout):
        raise ValueError(f"its arrays are {list(arrays)}, its network requires {list(layout)}")
    for name, array in arrays.items():
        dtype, shape = layout[name]
        if array.dtype.str != dtype or array.shape != shape:
            raise ValueError(
                f"its array {name!r} has type {array.dtype} and shape {array.shape}, its network "
                f"requires {np.dtype(dtype)} and {shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"its array {name!r} has entries that are not finite")
    for name in ("observation_count", "observation_variance"):
        if name in arrays and (arrays[name] < 0).any():
            raise ValueError(f"its array {name!r} has negative entries")


def save_policy(policy: Policy, path: Path | str, description: dict[str, Any]) -> None:
    """Save a policy, the description of the run that trained it, and the versions in use.

    Parameters
    ----------
    path : path
        An `.npz` file, which is replaced if it exists.
    description : dict
        JSON-ready; `Result.description`. `load_policy` returns it.

    Raises
    ------
    ValueError
        If the network is not one of minirl's, if the arrays do not fit the network or are not
        finite (the policy could not be loaded again), or if the description has no JSON form.
    """
    require_instance("policy", policy, Policy)
    require_instance("description", description, dict)
    if type(policy.network) not in NETWORKS.values():
        raise ValueError(
            f"policy cannot be saved: its network must be one of {', '.join(NETWORKS)}, got "
            f"{type(policy.network).__name__}; save its parameters with numpy.save"
        )
    header = {
        "network": describe(policy.network),
        "distribution": policy.distribution.__name__,
        "settings": description,  # the name in all stored files
        "versions": versions(),
    }
    arrays = {"parameters": np.asarray(policy.parameters)}
    if isinstance(policy.network, Features):
        arrays["features"] = policy.network.matrix
    statistics = policy.observation_statistics
    if statistics is not None:
        arrays["observation_count"] = np.array(statistics.count, dtype=np.int64)
        arrays["observation_mean"] = np.asarray(statistics.mean, np.float64)
        arrays["observation_variance"] = np.asarray(statistics.variance, np.float64)
    try:
        _require_arrays_fit(policy.network, arrays)
    except ValueError as error:
        raise ValueError(f"policy cannot be saved: {error}") from error
    save_arrays(path, FORMAT, header, arrays)


def load_policy(path: Path | str) -> tuple[Policy, dict[str, Any]]:
    """A policy saved by `save_policy`, and the description of the run that trained it.

    Raises
    ------
    FileNotFoundError
    PolicyFileError
        If the file is not exactly one that `save_policy` wrote. The message names the check that
        failed.
    """
    require_instance("path", path, str, os.PathLike)
    if not str(path):
        raise ValueError("path must name a file saved by minirl, policy.npz for example, got ''")
    try:
        header, arrays = load_arrays(path, FORMAT)
        network = _network_from(header["network"], arrays)
        _require_arrays_fit(network, arrays)
        distribution = _kind_named(header["distribution"], DISTRIBUTIONS)
        policy = Policy(network, distribution, arrays["parameters"])
        if "observation_count" in arrays:
            moments = RunningMoments(
                int(arrays["observation_count"]),
                arrays["observation_mean"],
                arrays["observation_variance"],
            )
            policy = policy.with_observation_statistics(moments)
        description = header["settings"]
        if not isinstance(description, dict):
            raise ValueError(f"its settings must be a dict, got {description!r}")
    except OSError:
        raise
    except Exception as error:  # zipfile, json and the constructors raise many kinds
        reason = f"its header lacks {error}" if isinstance(error, KeyError) else str(error)
        raise PolicyFileError(
            f"{path} is not a policy that minirl saved, or it is damaged: "
            f"{' '.join(reason.split())}"
        ) from error
    return policy, description


check_arguments(__name__)

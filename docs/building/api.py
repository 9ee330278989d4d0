"""Writes the reference of the package: one page per module, and a table that lists them."""

import ast
import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).parents[1]
PACKAGE, TARGET = DOCS.parent / "minirl", DOCS / "reference" / "api"
FOLDERS = {  # in the order of the layers, from the lowest upwards
    ".": "The package itself",
    "envs": "Environments",
    "exact": "Exact values",
    "algorithms": "Algorithms",
    "rlhf": "RLHF",
    "experiments": "Experiments",
    "experiments/alignment": "The alignment chain",
    "exercises": "Exercises",
    "support": "Support",
}


def modules(folder: str) -> dict[str, Path]:
    """The public modules of a folder of the package, the folder itself first."""
    paths = sorted((PACKAGE / folder).glob("*.py"), key=lambda path: path.stem)
    names = {}
    for path in paths:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if path.name == "__init__.py":
            if path.stat().st_size:
                names[".".join(parts[:-1])] = path
        elif not path.stem.startswith("_"):
            names[".".join(parts)] = path
    return names


def first_line(text: str | None) -> str:
    """The first line of a docstring, as a sentence in a cell of a table."""
    line = (text or "").splitlines()[0].rstrip(":")
    return (line if line.endswith((".", "?")) else line + ".").replace("|", "\\|")


def exported(package: str) -> str:
    """A table of the names that a package takes from its modules."""
    module = importlib.import_module(package)
    rows = []
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ != package:
            target = f"{value.__module__}.{value.__qualname__}"
            rows.append(f"| {{py:obj}}`{name} <{target}>` | {first_line(value.__doc__)} |")
    return "\n".join(["| name | |", "|---|---|", *rows]) if rows else ""


def page(name: str, is_package: bool) -> str:
    directive = f".. automodule:: {name}\n   :members:"
    if is_package:
        directive += "\n   :ignore-module-all:"  # not what it takes from its modules
    text = f"# {name}\n\n```{{eval-rst}}\n{directive}\n```\n"
    return text + (f"\n{exported(name)}\n" if is_package else "")


def write_api() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    lines = []
    for folder, title in FOLDERS.items():
        names = modules(folder)
        lines += [f"## {title}\n", "| module | |\n|---|---|"]
        for name, path in names.items():
            docstring = ast.get_docstring(ast.parse(path.read_text()))
            lines.append(f"| {{mod}}`{name}` | {first_line(docstring)} |")
            text = page(name, is_package=path.name == "__init__.py")
            (TARGET / f"{name}.md").write_text(text)
        entries = "\n".join(f"{name.removeprefix('minirl.')} <api/{name}>" for name in names)
        lines.append(f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n")
    (DOCS / "reference" / "api-list.md").write_text("\n".join(lines))


def resolve_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Lead `minirl.GAE` to `minirl.advantages.GAE`, where the class is defined."""
    target = node["reftarget"]
    if node.get("refdomain") != "py":
        return None
    if not target.startswith("minirl."):
        if node["reftype"] != "obj" or not isinstance(contnode, nodes.literal):
            return None
        contnode["classes"] = []  # in a docstring, the name of an argument or a file
        return contnode
    try:
        value = pkgutil.resolve_name(target)
        full = f"{value.__module__}.{value.__qualname__}"
    except (AttributeError, ImportError):
        return None
    if full == target:
        return None
    domain = env.domains.python_domain
    kind = node["reftype"]
    return domain.resolve_xref(env, node["refdoc"], app.builder, kind, full, node, contnode)


def without_constructor(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str | None] | None:
    """A protocol is not called, so its page shows no arguments."""
    return ("", None) if getattr(value, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", without_constructor)
    app.connect("missing-reference", resolve_short_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

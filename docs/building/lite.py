"""Builds JupyterLite into the site: every notebook runs in the browser, and nothing is installed.

Only Pyodide, that is Python, NumPy, SciPy and Matplotlib for the browser, comes from elsewhere,
and only when a reader presses "Run in browser". The wheels of minirl and of its other dependencies
are part of the site. They are packed from the files that are installed here, without a network.
"""

import base64
import hashlib
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from building import chinese
from building.notebooks import SOURCE, TARGET

ROOT = SOURCE.parent
KERNEL = "@jupyterlite/pyodide-kernel-extension"
# `comm` is part of every Jupyter kernel, and Pyodide does not contain it.
PACKAGES = ("minirl-numpy", "gymnasium", "cloudpickle", "farama-notifications", "tqdm", "comm")
# JupyterLite opens links between notebooks and the list of files with `tree`, text files with
# `edit` and new consoles with `consoles`.
APPS = ("notebooks", "tree", "edit", "consoles")
# What the notebooks read, as seen from the folder above `notebooks`.
FILES = (
    "notebooks/minirl.mplstyle",
    "benchmarks/results/*.csv",
    "benchmarks/results/learning_curves/*.csv",
    "benchmarks/results/overoptimisation/*.csv",
)
SITE = "/site/"  # in a notebook: the address of this site, which _static/lite.js replaces

BUTTONS = """\
<div class="notebook-links">
<a class="run" href="{root}lite/notebooks/index.html?path=notebooks/{name}.ipynb">{run}</a>
<a href="{file}.ipynb" download="">{download} .ipynb</a>
<a href="{file}.py" download="">{download} .py</a>
<span>{note}</span>
</div>"""
ENGLISH = {
    "run": "Run in browser",
    "download": "Download",
    "note": "The first run loads about 39 MB and takes 30 to 60 seconds. Nothing is installed.",
}
CHINESE = {
    "run": "在浏览器中运行",
    "download": "下载",
    "note": "首次运行约需加载 39 MB，等待 30 至 60 秒，无需安装任何软件。",
}

SETUP = """\
# Installs minirl in this browser. The first time, this takes up to a minute.
import piplite

await piplite.install("minirl-numpy")
import minirl  # before Gymnasium, because minirl supplies what Python lacks in a browser"""

CONFIG = {
    "jupyter-lite-schema-version": 0,
    "jupyter-config-data": {
        "appName": "minirl",
        "appUrl": "./tree",  # where the address of the folder leads
        "faviconUrl": "./tree/favicon.ico",
        "contentsAllJsonFile": "all.json",  # the files that `index` writes
        "litePluginSettings": {f"{KERNEL}:kernel": {"disablePyPIFallback": True}},
    },
}

# Shorter runs for the browser, per notebook: the text of a code cell, and what replaces it. A
# constant in the first line of the cell announces the change, and the reader may undo it there.
BUDGETS = {
    "05_trpo_vs_ppo.ipynb": {
        "fresh = collect_batch(seed=1000": (
            "BATCHES = 4  # a shorter run for the browser; the text below is about 12 batches\n"
            "fresh = collect_batch(seed=1000"
        ),
        "for seed in range(12):": "for seed in range(BATCHES):",
        ' of 12"': ' of {BATCHES}"',
        "choices = {\n": (
            "BATCHES = 2  # a shorter run for the browser; the text below is about six batches\n"
            "choices = {\n"
        ),
        "for seed in range(6):": "for seed in range(BATCHES):",
        "each of six batches": "each of {BATCHES} batches",
    },
    "07_preferences.ipynb": {
        "three_words = TokenTask(": (
            "# A shorter run for the browser; the text below is about sizes up to 10_000.\n"
            "DUEL_SIZES = [300, 1000]\n"
            "three_words = TokenTask("
        ),
        "duel_sizes, duel = [300, 1000, 3000, 10_000], {}": "duel_sizes, duel = DUEL_SIZES, {}",
    },
    "11_silent_bugs.ipynb": {
        "def both(run, bug, seeds=range(3)):": (
            "SEEDS = range(2)  # a shorter run for the browser; the text is about range(3)\n\n\n"
            "def both(run, bug, seeds=SEEDS):"
        ),
        "[chain(seed) for seed in range(3)]": "[chain(seed) for seed in SEEDS]",
        "[align(seed) for seed in range(3)]": "[align(seed) for seed in SEEDS]",
    },
    "12_neural_language_model.ipynb": {
        "curves = {}\nfor seed in (0, 1, 2):": (
            "SEEDS = (0,)  # a shorter run for the browser; the text is about the seeds 0, 1, 2\n"
            "curves = {}\nfor seed in SEEDS:"
        ),
        "for s in (0, 1, 2)": "for s in SEEDS",
        "success, models = {}, {}\nfor seed in (0, 1, 2):": (
            "success, models = {}, {}\nfor seed in SEEDS:"
        ),
        "cosines = []\n    for seed in (0, 1, 2):": "cosines = []\n    for seed in SEEDS:",
        "rates = []\n        for seed in (0, 1, 2):": "rates = []\n        for seed in SEEDS:",
    },
}


def wheel(name: str, folder: Path) -> None:
    """Pack an installed distribution of Python files into `folder`; minirl from its source."""
    # An editable installation also has an egg-info folder beside the source, without METADATA.
    installed = next(
        found
        for found in distributions(name=name)
        if any(str(path).endswith("/METADATA") for path in found.files or ())
    )
    paths = {str(path): Path(str(path.locate())) for path in installed.files or ()}
    if name == "minirl-numpy":
        source = (path for path in (ROOT / "minirl").rglob("*") if path.suffix in (".py", ".typed"))
        paths |= {path.relative_to(ROOT).as_posix(): path for path in source}
    info = next(posixpath.dirname(path) for path in paths if path.endswith("/METADATA"))
    unwanted = r"\.\./|.*__pycache__|.*\.pth$|.*/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
    contents = {
        path: file.read_bytes()
        for path, file in sorted(paths.items())
        if not re.match(unwanted, path) and not posixpath.isabs(path)
    }
    if b"Tag: py3-none-any" not in contents[f"{info}/WHEEL"]:
        raise ExtensionError(f"{name} is not pure Python and cannot be packed for the browser")
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in contents.items()
        for digest in [hashlib.sha256(data).digest()]
    ]
    contents[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    target = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)


def without_outputs(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def notebooks() -> Iterator[tuple[str, nbformat.NotebookNode]]:
    """Name and content, without outputs, of all notebooks, those in Chinese included."""
    for path in sorted([*SOURCE.glob("[0-9]*.ipynb"), *SOURCE.glob("solutions/[0-9]*.ipynb")]):
        yield path.relative_to(SOURCE).as_posix(), without_outputs(path)
    for path in sorted((SOURCE / "zh").glob("[0-9]*.md")):
        notebook = without_outputs(SOURCE / f"{path.stem}.ipynb")
        texts = chinese.blocks(path.stem)
        english = [
            p.stem for p in SOURCE.glob("[0-9]*.ipynb") if not path.with_stem(p.stem).exists()
        ]
        untranslated = rf"\]\((?=({'|'.join(english)})\.ipynb)"
        for cell in notebook.cells:
            if cell.id in texts:
                cell.source = re.sub(untranslated, "](../", texts[cell.id][1])
        yield f"zh/{path.stem}.ipynb", notebook


def with_links(text: str, module_page: Callable[[str], str]) -> str:
    """Markdown whose links lead to pages of the site; those to notebooks stay in JupyterLite."""

    def link(match: re.Match[str]) -> str:
        address, _, anchor = match[1].partition("#")
        path = re.sub(r"^(\.\./)+", "", address)
        if re.match(r"https?:", address) or re.fullmatch(r"((\.\./)?\d\d_\w+\.ipynb)?", address):
            return match[0]
        if path.startswith("minirl/"):
            target = module_page(
                path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            )
        elif path.startswith("docs/") and path.endswith(".md"):
            target = path.removeprefix("docs/").removesuffix(".md") + ".html"
        elif path.endswith(".ipynb"):
            target = f"notebooks/{path.removesuffix('.ipynb')}.html"
        else:
            raise ExtensionError(f"a notebook in the browser has nothing to open for {match[1]}")
        return f"]({SITE}{target}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def for_browser(
    name: str, notebook: nbformat.NotebookNode, module_page: Callable[[str], str]
) -> nbformat.NotebookNode:
    """The notebook with a cell that installs minirl, and with shorter runs."""
    budgets = dict(BUDGETS.get(posixpath.basename(name), {}) if "solutions" not in name else {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for text in [text for text in budgets if text in cell.source]:
                cell.source = cell.source.replace(text, budgets.pop(text))
        else:
            cell.source = with_links(cell.source, module_page)
    if budgets:
        raise ExtensionError(f"{name} has no cell with the text {next(iter(budgets))!r}")
    # The notebooks in Chinese are one folder deeper, and their cells are those of the English ones.
    setup = SETUP + "\n\n%cd -q .." * name.startswith("zh/")
    notebook.cells.insert(1, nbformat.v4.new_code_cell(setup, id="install"))
    notebook.metadata.kernelspec = {
        "display_name": "Python (Pyodide)",
        "language": "python",
        "name": "python",
    }
    return notebook


def index(folder: Path, root: Path, api: Path) -> dict[str, Any]:
    """Describe a folder of files to JupyterLite, and write the descriptions of it and below it."""
    entry: dict[str, Any] = {
        "name": folder.name if folder != root else "",
        "path": folder.relative_to(root).as_posix() if folder != root else "",
        "created": "2026-01-01T00:00:00Z",
        "last_modified": "2026-01-01T00:00:00Z",
        "mimetype": None,
        "content": None,
        "format": None,
        "writable": True,
    }
    if folder.is_file():
        kind = "notebook" if folder.suffix == ".ipynb" else "file"
        return {**entry, "type": kind, "size": folder.stat().st_size}
    content = [index(path, root, api) for path in sorted(folder.iterdir())]
    target = api / entry["path"] / "all.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    description = {**entry, "type": "directory", "size": None}
    target.write_text(json.dumps({**description, "format": "json", "content": content}))
    return description


def write_contents(files: Path, module_page: Callable[[str], str]) -> None:
    """Write the notebooks and what they read."""
    for name, notebook in notebooks():
        target = files / "notebooks" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(for_browser(name, notebook, module_page), target)
    for pattern in FILES:
        for path in ROOT.glob(pattern):
            target = files / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def build(output: Path, module_page: Callable[[str], str]) -> None:
    """Build JupyterLite into a folder of the site."""
    shutil.rmtree(output, ignore_errors=True)
    parts = distribution("jupyterlite-pyodide-kernel").files or []
    [package] = [path for path in parts if str(path).endswith(f"{KERNEL}/package.json")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pypi").mkdir()
        for name in PACKAGES:
            wheel(name, folder / "pypi")
        (folder / "jupyter-lite.json").write_text(json.dumps(CONFIG))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "jupyterlite_core", "build"),
                *(word for app in APPS for word in ("--apps", app)),
                *("--no-sourcemaps", "--no-unused-shared-packages"),
                *("--no-libarchive", "--lite-dir", folder, "--output-dir", output),
                *("--ignore-sys-prefix", "--LiteBuildConfig.federated_extensions"),
                Path(str(package.locate())).resolve().parent,
            ],
            env={**os.environ, "JUPYTERLITE_NO_JUPYTER_SERVER": "1"},  # `index` does without it
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ExtensionError(f"JupyterLite was not built:\n{done.stdout}{done.stderr}")
    write_contents(output / "files", module_page)
    index(output / "files", output / "files", output / "api" / "contents")
    for page in output.glob("*/index.html"):
        script = '<script src="../../_static/lite.js"></script></head>'
        page.write_text(page.read_text().replace("</head>", script, 1))


def add_buttons() -> None:
    """Put "Run in browser" and the downloads below the title of every copied notebook."""
    for path in sorted(TARGET.rglob("*.ipynb")):
        name = path.relative_to(TARGET).with_suffix("").as_posix()
        buttons = BUTTONS.format(
            root="../" * (name.count("/") + 1),
            name=name,
            file=path.stem,
            **(CHINESE if name.startswith("zh/") else ENGLISH),
        )
        notebook = nbformat.read(path, as_version=4)
        title, _, rest = notebook.cells[0].source.partition("\n")
        notebook.cells[0].source = f"{title}\n\n{buttons}\n{rest}"
        nbformat.write(notebook, path)


def as_script(notebook: nbformat.NotebookNode) -> str:
    """A notebook as Python, in the percent format that editors and Jupytext read."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cells.append(f"# %%\n{cell.source}\n")
        else:
            text = re.sub("^", "# ", cell.source, flags=re.M)
            cells.append(f"# %% [markdown]\n{re.sub('^# $', '#', text, flags=re.M)}\n")
    return "\n".join(cells)


def write_downloads(html: Path) -> None:
    """Write each notebook, without outputs and as a script, beside its page."""
    for name, notebook in notebooks():
        target = html / "notebooks" / name
        nbformat.write(notebook, target)
        target.with_suffix(".py").write_text(as_script(notebook))


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.name != "html":
        return
    pages = app.env.domains.python_domain.modules

    def module_page(module: str) -> str:
        return f"{app.builder.get_target_uri(pages[module].docname)}#{pages[module].node_id}"

    html = Path(app.outdir)
    write_downloads(html)
    build(html / "lite", module_page)


def setup(app: Sphinx) -> None:
    """Sphinx calls this: `building.lite` is one of the extensions."""
    app.connect("build-finished", finish)

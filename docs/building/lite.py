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
from datetime import UTC, datetime
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
# What the notebooks read, and the other stored results, so that a reader can plot them too.
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
<a href="{file}.ipynb" download="{file}{suffix}.ipynb">{download} .ipynb</a>
<a href="{file}.py" download="{file}{suffix}.py">{download} .py</a>
<span>{note} <a href="{root}reference/browser.html">{how}</a></span>
</div>"""
ENGLISH = {
    "run": "Run in browser",
    "download": "Download",
    "note": (
        "The first run loads about 39 MB and takes 30 to 60 seconds. Nothing is installed. "
        "The downloads need a clone of minirl."
    ),
    "page": "This notebook as a page",
    "how": "How it works",
}
CHINESE = {
    "run": "在浏览器中运行",
    "download": "下载",
    "note": (
        "首次运行约需加载 39 MB，等待 30 至 60 秒，无需安装任何软件。"
        "下载的文件要放进 minirl 的本地仓库才能运行。"
    ),
    "page": "本 notebook 的网页版",
    "how": "使用说明（英文）",
}

SETUP = """\
# Press Shift+Enter to run a cell, or choose Run > Run All Cells. Python is loaded first: the ring
# at the top right turns until it is ready. This cell then installs minirl, which takes up to a
# minute the first time.
import logging

import piplite

# Matplotlib would report, in a red box, that it makes a list of the fonts.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
await piplite.install("minirl-numpy")
import minirl  # before Gymnasium, because minirl supplies what Python lacks in a browser"""

CONFIG = {
    "jupyter-lite-schema-version": 0,
    "jupyter-config-data": {
        "appName": "minirl",
        "appUrl": "./tree",  # where the address of the folder leads
        "faviconUrl": "./tree/favicon.ico",
        "contentsAllJsonFile": "all.json",  # the files that `index` writes
        "settingsOverrides": {"@jupyterlab/apputils-extension:themes": {"adaptive-theme": True}},
        "litePluginSettings": {f"{KERNEL}:kernel": {"disablePyPIFallback": True}},
    },
}

# Shorter runs for the browser, per notebook: constants for the first cell, and texts of code cells
# with what replaces them.
BUDGETS = {
    "05_trpo_vs_ppo.ipynb": (
        "STEP_BATCHES = 4  # 12\nSIZE_BATCHES = 2  # 6",
        {
            "for seed in range(12):": "for seed in range(STEP_BATCHES):",
            ' of 12"': ' of {STEP_BATCHES}"',
            "for seed in range(6):": "for seed in range(SIZE_BATCHES):",
            "each of six batches": "each of {SIZE_BATCHES} batches",
        },
    ),
    "07_preferences.ipynb": (
        "DUEL_SIZES = [300, 1000]  # [300, 1000, 3000, 10_000]",
        {"duel_sizes, duel = [300, 1000, 3000, 10_000], {}": "duel_sizes, duel = DUEL_SIZES, {}"},
    ),
    "11_silent_bugs.ipynb": (
        "SEEDS = range(2)  # range(3)",
        {
            "def both(run, bug, seeds=range(3)):": "def both(run, bug, seeds=SEEDS):",
            "[chain(seed) for seed in range(3)]": "[chain(seed) for seed in SEEDS]",
            "[align(seed) for seed in range(3)]": "[align(seed) for seed in SEEDS]",
        },
    ),
    "12_neural_language_model.ipynb": (
        "SEEDS = (0,)  # (0, 1, 2)\nSENTENCES = 25_600  # 51_200",
        {
            "sentences=51_200": "sentences=SENTENCES",
            '"sentences": 51_200': '"sentences": SENTENCES',
            "curves = {}\nfor seed in (0, 1, 2):": "curves = {}\nfor seed in SEEDS:",
            'optimum, seeds 0, 1, 2")': 'optimum, seeds", *SEEDS)',
            "for s in (0, 1, 2)": "for s in SEEDS",
            "models = {}, {}\nfor seed in (0, 1, 2):": "models = {}, {}\nfor seed in SEEDS:",
            'success, seeds 0, 1, 2")': 'success, seeds", *SEEDS)',
            "cosines = []\n    for seed in (0, 1, 2):": "cosines = []\n    for seed in SEEDS:",
            'prompts, seeds 0, 1, 2")': 'prompts, seeds", *SEEDS)',
            "rates = []\n        for seed in (0, 1, 2):": "rates = []\n        for seed in SEEDS:",
        },
    ),
}


def wheel(name: str, folder: Path) -> None:
    """Pack an installed distribution of Python files into `folder`; minirl from its source."""
    # An editable installation also has an egg-info folder beside the source, without METADATA.
    installed = next(
        (
            found
            for found in distributions(name=name)
            if any(str(path).endswith("/METADATA") for path in found.files or ())
        ),
        None,
    )
    if installed is None:
        raise ExtensionError(
            f"{name} is not installed, so it cannot be packed for the browser; pip install {name}"
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
        for cell in notebook.cells:
            if cell.id in texts:
                cell.source = texts[cell.id][1]
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
    """The notebook with a first cell that installs minirl, and with shorter runs."""
    words = CHINESE if name.startswith("zh/") else ENGLISH
    constants, texts = BUDGETS.get(name.removeprefix("zh/"), ("", {}))
    for text, shorter in texts.items():
        changed = [cell for cell in notebook.cells if text in cell.source]
        if len(changed) != 1 or changed[0].source.count(text) != 1:
            raise ExtensionError(f"{name} must have the text {text!r} in one place, to shorten it")
        changed[0].source = changed[0].source.replace(text, shorter)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = chinese.deeper(cell.source) if words is CHINESE else cell.source
            cell.source = with_links(text, module_page)
    page = f"{SITE}notebooks/{posixpath.splitext(name)[0]}.html"
    links = f"[{words['page']}]({page}) · [{words['how']}]({SITE}reference/browser.html)"
    notebook.cells[0].source += f"\n\n{links}"
    setup = SETUP
    if constants:
        note = "# Shorter runs for the browser. The text is about the values in the comments."
        setup += f"\n\n{note}\n{constants}"
    if words is CHINESE:
        # One folder deeper than the English edition, whose cells read files. `%cd` would warn.
        setup += '\n\nimport os\n\nos.chdir("..")'
    notebook.cells.insert(1, nbformat.v4.new_code_cell(setup, id="install"))
    notebook.metadata.kernelspec = {
        "display_name": "Python (Pyodide)",
        "language": "python",
        "name": "python",
    }
    return notebook


def index(folder: Path, root: Path, api: Path) -> dict[str, Any]:
    """Return JupyterLite's description of a file or folder.

    For a folder, also write `all.json` for it and for every folder below it.
    """
    changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat()
    entry: dict[str, Any] = {
        "name": folder.name if folder != root else "",
        "path": folder.relative_to(root).as_posix() if folder != root else "",
        "created": changed,
        "last_modified": changed,
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
            suffix="" if path.parent == TARGET else f"-{path.parent.name}",
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

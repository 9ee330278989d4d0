"""JupyterLite in the built site: wheels, files and links. `make lite-check` runs its notebooks."""

import hashlib
import json
import re
import sys
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

from building import lite  # noqa: E402

SITE = ROOT / "docs" / "_build" / "html"
LITE = SITE / "lite"
FILES = LITE / "files"

pytestmark = pytest.mark.skipif(
    not LITE.exists(), reason="the site is not built: run `make docs` first"
)


def notebooks():
    return sorted((FILES / "notebooks").rglob("*.ipynb"))


def pages():
    return sorted((SITE / "notebooks").rglob("*.html"))


def cells(path, kind):
    found = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def is_shorter(path):
    return path.name in lite.BUDGETS and path.parent.name != "solutions"


def test_the_index_describes_the_wheels():
    index = json.loads((LITE / "pypi" / "all.json").read_text())
    found = {}
    for name, project in index.items():
        for releases in project["releases"].values():
            for release in releases:
                data = (LITE / "pypi" / release["url"]).read_bytes()
                assert release["digests"]["sha256"] == hashlib.sha256(data).hexdigest()
                found[release["filename"]] = name
    assert set(found) == {path.name for path in (LITE / "pypi").glob("*.whl")}
    packages = {"minirl-numpy", "gymnasium", "cloudpickle", "farama-notifications", "tqdm", "comm"}
    assert set(found.values()) == packages


def test_jupyterlite_reads_this_index_and_no_other_registry():
    config = json.loads((LITE / "jupyter-lite.json").read_text())["jupyter-config-data"]
    kernel = config["litePluginSettings"]["@jupyterlite/pyodide-kernel-extension:kernel"]
    digest = hashlib.sha256((LITE / "pypi" / "all.json").read_bytes()).hexdigest()
    assert f"./pypi/all.json?sha256={digest}" in kernel["pipliteUrls"]
    assert kernel["disablePyPIFallback"] is True
    assert "pyodideUrl" not in kernel  # the default: the release that the kernel was made for


def test_the_wheel_of_minirl_is_its_source():
    [path] = (LITE / "pypi").glob("minirl_numpy-*.whl")
    source = ROOT / "minirl"
    with zipfile.ZipFile(path) as wheel:
        assert wheel.testzip() is None
        packed = {name: wheel.read(name) for name in wheel.namelist() if name.startswith("minirl/")}
        info = next(name for name in wheel.namelist() if name.endswith("/RECORD"))
        record = {line.split(",")[0] for line in wheel.read(info).decode().splitlines()}
        assert record == set(wheel.namelist())
    files = {f"minirl/{path.relative_to(source).as_posix()}": path for path in source.rglob("*.py")}
    assert {name for name in packed if name.endswith(".py")} == set(files)
    assert all(packed[name] == path.read_bytes() for name, path in files.items())


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_installs_minirl_first_and_has_no_outputs(path):
    name = path.relative_to(FILES).with_suffix(".html").as_posix()
    title = cells(path, "markdown")[0]
    assert f"](/site/{name})" in title
    assert "](/site/reference/browser.html)" in title
    code = cells(path, "code")
    assert 'piplite.install("minirl-numpy")' in code[0]
    assert "import gymnasium" not in code[0]
    assert not any(cell.get("outputs") for cell in json.loads(path.read_text())["cells"])


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_the_links_of_a_notebook_lead_somewhere(path):
    for text in cells(path, "markdown"):
        for address in re.findall(r"\]\(([^)\s]+)\)", text):
            address, _, anchor = address.partition("#")
            if address.startswith("/site/"):
                page = SITE / address.removeprefix("/site/")
                assert page.is_file(), address
                assert not anchor or f'id="{anchor}"' in page.read_text(), (address, anchor)
            elif address and not address.startswith("http"):
                assert (path.parent / address).is_file(), address


@pytest.mark.parametrize("app", ["notebooks", "tree", "edit", "consoles"])
def test_the_parts_of_jupyterlite_that_its_links_open_are_there(app):
    assert (LITE / app / "index.html").is_file()
    assert list((LITE / "build" / app).glob("bundle.js"))


def test_the_address_of_the_folder_opens_a_part_that_is_there():
    config = json.loads((LITE / "jupyter-lite.json").read_text())["jupyter-config-data"]
    assert (LITE / config["appUrl"] / "index.html").is_file()
    assert (LITE / config["faviconUrl"]).is_file()


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_the_files_that_a_notebook_reads_are_there(path):
    folder = FILES / "notebooks" / ("solutions" if path.parent.name == "solutions" else "")
    code = "\n".join(cells(path, "code"))
    for name in re.findall(r'"((?:\.\./)*(?:benchmarks/|minirl\.mplstyle)[^"]*)"', code):
        assert (folder / name).exists(), name


@pytest.mark.parametrize("pattern", lite.FILES)
def test_the_files_beside_the_notebooks_are_those_of_the_repository(pattern):
    files = {path.relative_to(ROOT) for path in ROOT.glob(pattern)}
    assert files
    assert {path.relative_to(FILES) for path in FILES.glob(pattern)} == files


@pytest.mark.parametrize(
    "path", [path for path in notebooks() if is_shorter(path)], ids=lambda path: path.stem
)
def test_a_shorter_run_is_announced_in_the_first_cell(path):
    constants, texts = lite.BUDGETS[path.name]
    setup, *code = cells(path, "code")
    note = "# Shorter runs for the browser. The text is about the values in the comments."
    assert f"{note}\n{constants}" in setup
    code, shorter = "\n".join(code), "\n".join(texts.values())
    for line in constants.splitlines():
        name = re.fullmatch(r"([A-Z_]+) = .+  # .+", line)[1]
        assert name in shorter
    for text, replacement in texts.items():
        assert text not in code
        assert replacement in code
    assert not re.search("seeds 0, 1, 2| of 12|six batches", code)


def test_a_text_that_a_shorter_run_replaces_must_occur_once(monkeypatch):
    monkeypatch.setattr(lite, "BUDGETS", {"a.ipynb": ("N = 1  # 2", {"range(2)": "range(N)"})})
    for source in ("range(3)", "range(2), range(2)"):
        title = nbformat.v4.new_markdown_cell("# Title")
        cell = nbformat.v4.new_code_cell(source)
        notebook = nbformat.v4.new_notebook(cells=[title, cell])
        with pytest.raises(ExtensionError, match=r"a\.ipynb must have .* in one place"):
            lite.for_browser("a.ipynb", notebook, str)


def test_a_package_that_is_not_installed_cannot_be_packed(tmp_path):
    with pytest.raises(ExtensionError, match="no-such-package is not installed"):
        lite.wheel("no-such-package", tmp_path)


def test_jupyterlite_lists_every_file():
    index = json.loads((LITE / "pypi" / "all.json").read_text())
    [[wheel]] = index["minirl-numpy"]["releases"].values()
    built = datetime.fromisoformat(wheel["upload_time_iso_8601"])
    for folder in [FILES, *(path for path in FILES.rglob("*") if path.is_dir())]:
        listing = LITE / "api" / "contents" / folder.relative_to(FILES) / "all.json"
        entries = json.loads(listing.read_text())["content"]
        assert {entry["name"] for entry in entries} == {path.name for path in folder.iterdir()}
        for entry in entries:
            assert abs(datetime.fromisoformat(entry["last_modified"]) - built) < timedelta(hours=1)
            path = FILES / entry["path"]
            assert path.is_dir() == (entry["type"] == "directory")
            assert entry["size"] == (None if path.is_dir() else path.stat().st_size)


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_the_buttons_of_a_page_lead_to_its_notebook(path):
    name = path.relative_to(SITE / "notebooks").with_suffix("")
    block = re.search(r'<div class="notebook-links">(.*?)</div>', path.read_text(), re.S)
    if not (FILES / "notebooks" / name).with_suffix(".ipynb").exists():
        assert block is None  # a list of notebooks
        return
    run, *downloads, explanation = re.findall(r'href="([^"]+)"', block[1])
    assert (path.parent / explanation).resolve() == SITE / "reference" / "browser.html"
    parts = urlsplit(run.replace("&amp;", "&"))
    assert (path.parent / parts.path).resolve() == LITE / "notebooks" / "index.html"
    assert parse_qs(parts.query)["path"] == [f"notebooks/{name.as_posix()}.ipynb"]
    assert [(path.parent / file).is_file() for file in downloads] == [True, True]
    assert ("下载" in block[1]) == name.as_posix().startswith("zh/")


def test_downloads_have_different_names():
    found = "".join(path.read_text() for path in pages())
    names = re.findall(r'download="([^"]*)"', found)
    assert len(names) == 2 * len(notebooks())
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "path", sorted((SITE / "notebooks").rglob("*.ipynb")), ids=lambda p: p.stem
)
def test_the_links_of_a_download_are_right_in_a_clone(path):
    folder = ROOT / "notebooks" / ("solutions" if path.parent.name == "solutions" else "")
    for text in cells(path, "markdown"):
        for address in re.findall(r"\]\(([^)\s#]+)", text):
            assert address.startswith("http") or (folder / address).exists(), address


@pytest.mark.parametrize("path", sorted((SITE / "notebooks").rglob("*.py")), ids=lambda p: p.stem)
def test_a_downloaded_script_has_the_code_of_the_notebook(path):
    script = path.read_text()
    compile(script, path.name, "exec")
    for code in cells(path.with_suffix(".ipynb"), "code"):
        assert f"# %%\n{code}\n" in script

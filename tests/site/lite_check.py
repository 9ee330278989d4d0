"""Run the notebooks of the built site in Chromium: `make docs`, then `make lite-check DIST=FOLDER`.

FOLDER holds a Pyodide distribution, that is the unpacked archive of one of its releases. The site
is served as it was built, except that it loads Pyodide from this folder. Every cell of a notebook
must run without an error, and print nothing to stderr. One line per notebook shows how long it
took.
"""

import argparse
import functools
import http.server
import json
import re
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

from conftest import CHROMIUM, SITE
from playwright.sync_api import Page, sync_playwright

TIMEOUT = 1000 * 60 * 30  # milliseconds for one notebook

OPENED = """() => window.jupyterapp?.shell.currentWidget?.context?.isReady
    && window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === "idle" """
# A running `evaluate` has no time limit, so this one starts the cells and returns at once.
RUN_ALL = """() => {
    const run = window.jupyterapp.commands.execute("notebook:run-all-cells");
    run.finally(() => { window.finished = true; });
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"


class Handler(http.server.SimpleHTTPRequestHandler):
    """The site, and Pyodide below /pyodide/."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }
    distribution: Path

    def translate_path(self, path: str) -> str:
        if path.startswith("/pyodide/"):
            return str(self.distribution / path.partition("?")[0].removeprefix("/pyodide/"))
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/lite/jupyter-lite.json":
            super().do_GET()
            return
        config = json.loads((SITE / "lite" / "jupyter-lite.json").read_text())
        data = config["jupyter-config-data"]
        data["exposeAppInBrowser"] = True
        overrides = {"@jupyterlab/notebook-extension:tracker": {"recordTiming": True}}
        data["settingsOverrides"] = data.get("settingsOverrides", {}) | overrides
        settings = data["litePluginSettings"]["@jupyterlite/pyodide-kernel-extension:kernel"]
        settings["pyodideUrl"] = "/pyodide/pyodide.mjs"
        body = json.dumps(config).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def complaints(cells: list[dict]) -> list[str]:
    """Errors and warnings in the outputs of the cells, and cells that were not reached."""
    found = []
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"cell {number}: {output['ename']}: {output['evalue']}")
            elif output.get("name") == "stderr":
                found.append(f"cell {number} printed to stderr: {''.join(output['text'])}")
        if cell["execution_count"] is None and "".join(cell["source"]).strip():
            found.append(f"cell {number} did not run")
    return found[:3]


def slowest(cells: list[dict]) -> str:
    """The heading of the slowest cell's section, and the seconds of this cell."""
    heading, found = "the first cells", (0.0, "")
    for cell in cells:
        source = "".join(cell["source"])
        heading = (re.findall("^## (.*)", source, re.M) or [heading])[-1]
        times = cell["metadata"].get("execution", {})
        if "shell.execute_reply" in times:
            began, ended = (
                datetime.fromisoformat(times[event])
                for event in ("iopub.execute_input", "shell.execute_reply")
            )
            found = max(found, ((ended - began).total_seconds(), heading))
    return f"slowest cell {found[0]:.0f} s, in {found[1]}"


def run(page: Page, root: str, name: str) -> tuple[float, float, list[dict]]:
    """Seconds until the kernel is ready, seconds of all cells, and the cells with outputs."""
    began = time.perf_counter()
    page.goto(f"{root}lite/notebooks/index.html?path=notebooks/{name}")
    page.wait_for_function(OPENED, timeout=TIMEOUT)
    ready = time.perf_counter()
    page.evaluate(RUN_ALL)
    page.wait_for_function("window.finished", timeout=TIMEOUT)
    ended = time.perf_counter()
    return ready - began, ended - ready, page.evaluate(CELLS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("distribution", type=Path, help="folder that holds pyodide.mjs")
    parser.add_argument("names", nargs="*", help="parts of file names (default: all notebooks)")
    arguments = parser.parse_args()
    if not (arguments.distribution / "pyodide.mjs").exists():
        parser.error(f"there is no pyodide.mjs in {arguments.distribution}")
    folder = SITE / "lite" / "files" / "notebooks"
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.ipynb"))]
    wanted = [name for name in names if any(part in name for part in arguments.names or [""])]
    if not wanted:
        searched = " or ".join(arguments.names) or "any name"
        parser.error(f"{folder} has no notebook with {searched}; run `make docs` first")
    Handler.distribution = arguments.distribution.resolve()
    handler = functools.partial(Handler, directory=str(SITE))
    failed = 0
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as starter,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}/"
        chromium = starter.chromium.launch(executable_path=CHROMIUM or None, args=["--no-sandbox"])
        for name in wanted:
            page = chromium.new_page()
            page.set_default_timeout(TIMEOUT)
            opened, ran, cells = run(page, root, name)
            page.close()
            found = complaints(cells)
            failed += bool(found)
            times = f"open {opened:4.0f} s   run {ran:4.0f} s   {slowest(cells)}"
            print(f"{name:40} {times}", flush=True)
            for complaint in found:
                print(f"    {complaint}", flush=True)
        chromium.close()
        server.shutdown()
    print(f"{len(wanted)} notebooks, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

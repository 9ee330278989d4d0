"""The built site in a browser: `make docs`, then `make site-check`.

A test asks for `visit` and calls `visit("rlhf/dpo.html")`, which returns Playwright's page. An
argument named `address` runs a test once per page of the site; `sampled_address` and `notebook` do
so for a sample of the pages and of the notebooks. No page may send a request to another machine or
print an error into the console; `visit` checks both at the end of each test.
"""

import functools
import gzip
import http.server
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for what several tests of the site share
SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
NOT_PAGES = ("_modules/", "_static/", "lite/", "genindex", "py-modindex")


def addresses():
    """All pages of the site, but not the listings of source code."""
    found = (path.relative_to(SITE).as_posix() for path in sorted(SITE.rglob("*.html")))
    return [address for address in found if not address.startswith(NOT_PAGES)]


def sample(pages):
    """Every third page, and every thirtieth of API and solutions, which one template writes.

    With MINIRL_ALL_PAGES=1, all of them, which takes about half an hour.
    """
    if os.environ.get("MINIRL_ALL_PAGES") == "1":
        return pages
    alike = [page for page in pages if re.match(r"reference/api/|notebooks/solutions/", page)]
    others = [page for page in pages if page not in alike]
    first = ["404.html", "index.html", "search.html"]
    return sorted({*(page for page in first if page in pages), *others[::3], *alike[::30]})


def pytest_generate_tests(metafunc):
    pages = addresses()
    notebooks = [page for page in pages if re.match(r"notebooks/(zh/)?\d\d_", page)]
    named = {"address": pages, "sampled_address": sample(pages), "notebook": sample(notebooks)}
    for name, pages in named.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, pages or ["index.html"])


@functools.cache
def compressed(path, changed):
    return gzip.compress(path.read_bytes(), mtime=0)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves like a static host: text compressed, 404.html, and a slash behind a folder."""

    protocol_version = "HTTP/1.1"
    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".wasm": "application/wasm",
        ".woff2": "font/woff2",
    }

    def do_GET(self):
        path, status = Path(self.translate_path(self.path)), 200
        address, _, query = self.path.partition("?")
        if path.is_dir() and not address.endswith("/"):
            self.send_response(301)
            self.send_header("Location", f"{address}/?{query}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.is_dir():
            path /= "index.html"
        if not path.is_file():
            path, status = SITE / "404.html", 404
        kind = self.guess_type(path)
        is_text = re.search("text|javascript|json|svg|xml|wasm", kind) is not None
        if not path.is_file():
            body, is_text = b"", False
        elif is_text:
            body = compressed(path, path.stat().st_mtime)
        else:
            body = path.read_bytes()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if is_text:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def root():
    """The address of the served site, which ends with a slash."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: run `make docs` first")
    handler = functools.partial(Handler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as starter:
        chromium = starter.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(root, browser):
    """`visit(address, width, height, dark, **options of the context)` opens a page of the site."""
    contexts, foreign, errors = [], [], []

    def route(request):
        if request.request.url.startswith((root, "data:", "blob:")):
            request.continue_()
        else:
            foreign.append(request.request.url)
            request.abort()

    def visit(address="", width=1280, height=800, dark=False, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            **{"reduced_motion": "reduce", **options},
        )
        contexts.append(context)
        context.route("**/*", route)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{address}: {error}"))
        page.on(
            "console",
            lambda message: message.type == "error" and errors.append(f"{address}: {message.text}"),
        )
        page.goto(root + address, wait_until="load")
        page.evaluate("() => document.fonts.ready.then(() => {})")  # formulas change their width
        # While a folded cell fades in, its colours have too little contrast.
        page.add_style_tag(content="* { animation: none !important; transition: none !important }")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert foreign == [], "the site sends no request to another machine"
    assert errors == [], "no page prints an error into the console"

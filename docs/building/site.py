"""Features of the whole site: addresses, edit links, descriptions, the page for errors.

Two environment variables say where the site and its source are published; `make docs` works
without them. docs/reference/publishing.md describes them.

- MINIRL_SITE_URL: the address of the start page, such as https://example.org/minirl/
- MINIRL_REPOSITORY_URL: the repository in a browser, such as https://github.com/OWNER/minirl
"""

import html
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

from building.chinese import is_chinese
from building.search import words

DOCS = Path(__file__).parents[1]
SITE = os.environ.get("MINIRL_SITE_URL", "").rstrip("/")
REPOSITORY = os.environ.get("MINIRL_REPOSITORY_URL", "").rstrip("/").removesuffix(".git")
ENDS = {"reference/publishing": "next", "zh": "prev"}  # the last English page, the Chinese one
EDIT = {"github": "edit", "gitlab": "-/edit"}  # elsewhere as Gitea and Forgejo write it


def configure(app: Sphinx, config: Config) -> None:
    top = config.notfound_urls_prefix = urlsplit(SITE).path + "/"
    config.notfound_context = {
        "title": "Page not found",
        "body": "<h1>Page not found</h1><p>This address has no page. "
        f'The <a href="{top}index.html">start page</a> lists all notebooks, '
        f'and the <a href="{top}search.html">search</a> finds words.</p>',
    }
    if SITE:
        config.html_baseurl = config.ogp_site_url = SITE + "/"
        config.ogp_enable_meta_description = False  # `describe` writes it, with and without SITE
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = [
            *("404.html", "search.html", "genindex.html", "py-modindex.html", "_modules/*")
        ]


def source(page: str) -> str:
    """The file of the repository from which a page is made."""
    if module := page.partition("reference/api/")[2].replace(".", "/"):
        return f"{module}/__init__.py" if (DOCS.parent / module).is_dir() else f"{module}.py"
    match = re.fullmatch(r"notebooks/(zh/)?(\w+|solutions/\w+)", page)
    if not match:
        return f"docs/{page}.md"
    return f"{page}.md" if match[1] else f"{page}.ipynb"


def edit_link(page: str) -> str:
    """Where the source of a page is edited; the name of the host tells which program it runs."""
    host = urlsplit(REPOSITORY).netloc
    verb = next((verb for name, verb in EDIT.items() if name in host), "_edit")
    return f"{REPOSITORY}/{verb}/main/{source(page)}"


def description(tree: nodes.document) -> str:
    """The first paragraph of a page, cut at a word or behind a Chinese mark.

    Paragraphs of 60 characters or fewer are skipped, such as the link to the other language.
    """
    found = tree.findall(nodes.paragraph)
    paragraphs = (" ".join("".join(words(node)).split()) for node in found)
    text = next((text for text in paragraphs if len(text) > 60), "")
    if len(text) < 160:
        return text
    return re.match(r".{1,158}(?:(?= )|(?<=[，。；：]))|.{158}", text)[0] + " …"


def add_colab(page: str, body: str) -> str:
    """The page of a notebook with a button for Google Colab, which opens notebooks of GitHub only.

    The package is copied and not installed with `-e`: a running kernel does not find an editable
    installation until it is restarted.
    """
    notebook = re.fullmatch(r"notebooks/(zh/)?(\d\d_\w+)", page)
    if not notebook or urlsplit(REPOSITORY).netloc != "github.com":
        return body
    address = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    link = f'<a href="{address}/blob/main/notebooks/{notebook[2]}.ipynb">'
    install = f"<code>!git clone {REPOSITORY} minirl &amp;&amp; pip install ./minirl</code>"
    enter = "<code>%cd minirl/notebooks</code>"
    if notebook[1]:
        button, hint = "在 Colab 中打开英文版", f"在 Colab 中，先运行 {install}，再运行 {enter}。"
    else:
        button, hint = "Open in Colab", f" In Colab, first run {install}, then {enter}."
    links = r'(<div class="notebook-links">.*?)(<span>.*?)(</span>)'
    return re.sub(links, rf"\1{link}{button}</a>\n\2{hint}\3", body, count=1, flags=re.S)


def load_later(body: str, sources: dict[str, Path]) -> str:
    """The page with images that are loaded when they come near, in places of their size.

    Without the size, a link to a figure leads to another place: the images above it, which are
    loaded on the way, move it down.
    """

    def tag(match: re.Match[str]) -> str:
        source = sources.get(unquote(match[1]).rpartition("_images/")[2])
        size = ""
        if source is not None and source.suffix != ".svg":
            with Image.open(source) as image:
                size = f'width="{image.width}" height="{image.height}" '
        return f'<img loading="lazy" {size}{match[0].removeprefix("<img ")}'

    return re.sub(r'<img [^>]*?src="([^"]*)"', tag, body)


def correct(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    heading = 'role="heading"'  # the theme does not set the level of these headings
    tree_of_pages = context.get("furo_navigation_tree", "")
    tree_of_pages = tree_of_pages.replace(heading, f'{heading} aria-level="2"')
    # long names of modules are broken behind a dot
    context["furo_navigation_tree"] = re.sub(r"(?<=\w)\.(?=[\w.]+</a>)", ".<wbr>", tree_of_pages)
    if page in ENDS:
        context[ENDS[page]] = None
    sources = {name: Path(app.srcdir, file) for file, name in app.builder.images.items()}
    body = load_later(context.get("body", ""), sources)
    body = re.sub(r"(?<=\w)\.(?=[\w.]+<a class=\"headerlink)", ".<wbr>", body)
    context["body"] = add_colab(page, body)
    if tree is not None and (text := description(tree)):
        tag = f'<meta name="description" content="{html.escape(text)}" />'
        context["metatags"] = context.get("metatags", "") + tag
    if REPOSITORY:
        context["theme_source_edit_link"] = edit_link(page)


def prepare_card(app: Sphinx, page: str, template: str, context: Any, tree: Any) -> None:
    """What social networks show: the description, and for English pages a picture of it.

    The font of the pictures has no Chinese characters. The page itself is written already, so its
    tree may be reduced to what the description is made from.
    """
    app.config.ogp_social_cards = {"enable": not is_chinese(page), "image_mini": "cartpole.gif"}
    if tree is not None:
        tree.children = [nodes.paragraph("", description(tree))]


def remove_sources(app: Sphinx, error: Exception | None) -> None:
    """Sphinx makes a folder for the sources of the pages, which this site does not publish."""
    if app.builder.name == "html":
        shutil.rmtree(Path(app.outdir, "_sources"), ignore_errors=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("notfound.extension")
    if SITE:
        app.setup_extension("sphinx_sitemap")
        app.setup_extension("sphinxext.opengraph")
        app.connect("html-page-context", prepare_card, priority=100)  # before the cards are drawn
    app.connect("config-inited", configure, priority=100)
    app.connect("html-page-context", correct, priority=900)  # after the theme
    app.connect("build-finished", remove_sources)
    return {"parallel_read_safe": True}

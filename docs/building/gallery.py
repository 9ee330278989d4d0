"""The gallery: every figure of the notebooks and of the pages, small, with its caption and a link.

`docs/gallery.md` includes what is written here. The thumbnails are made at build time.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from building.cards import small
from building.chinese import rows
from building.lists import anchor

DOCS = Path(__file__).parents[1]
SOURCE, TARGET = DOCS.parent / "notebooks", DOCS / "notebooks"
PAGES = ("algorithms", "rlhf", "results")
# An image in a paragraph of its own, and its caption in italics: building/numbers.py
CAPTIONED = re.compile(r"^!\[([^\]]+)\]\((\S+)\)\n\n\*(.+?)\*\n(?:\n|\Z)", re.M | re.S)


def item(picture: str, alt: str, link: str, caption: str) -> str:
    alt = json.dumps(" ".join(alt.split()), ensure_ascii=False)
    image = f"```{{image}} notebooks/gallery/{picture}.png\n:alt: {alt}\n```"
    return f":::{{div}} gallery-item\n{image}\n{link}. {' '.join(caption.split())}\n:::\n"


def grid(items: list[str]) -> str:
    return "\n".join(["::::{div} gallery", *items, "::::\n"])


def of_notebook(path: Path, figures: list[dict[str, str]]) -> Iterator[str]:
    """The figures of one notebook; each links to its cell."""
    cells = {cell["id"]: cell for cell in json.loads(path.read_text())["cells"]}
    for row in figures:
        if row["notebook"] == path.name[:2]:
            picture = small(cells[row["cell"]])
            (TARGET / "gallery" / f"{row['cell']}.png").write_bytes(picture)
            link = f"{{numref}}`figure-{row['cell']}`"
            yield item(row["cell"], row["alt"], link, row["caption"])


def of_page(path: Path) -> Iterator[str]:
    """The figures of one page; each links to the heading above it."""
    text, name = path.read_text(), path.relative_to(DOCS).as_posix()
    for match in CAPTIONED.finditer(text):
        alt, file, caption = match.groups()
        headings = re.findall(r"^(#+) (.*)", text[: match.start()], re.M)
        level, title = headings[-1]
        target = f"{name}#{anchor(title)}" if 1 < len(level) <= 3 else name
        place = headings[0][1] if level == "#" else f"{headings[0][1]}: {title}"
        picture = name.replace("/", "-").removesuffix(".md") + f"-{Path(file).stem}"
        image = small(path.parent / file)
        (TARGET / "gallery" / f"{picture}.png").write_bytes(image)
        yield item(picture, alt, f"[{place.rstrip('.')}]({target})", caption)


def write_gallery() -> None:
    """Run after the notebooks were copied: the thumbnails stand beside them."""
    (TARGET / "gallery").mkdir()
    figures = rows(DOCS / "figures.csv")
    parts = []
    for path in sorted(SOURCE.glob("[0-9]*.ipynb")):
        title = json.loads(path.read_text())["cells"][0]["source"][0].strip("# \n")
        if items := list(of_notebook(path, figures)):
            parts += [f"## {title}\n", grid(items)]
    pages = (path for folder in PAGES for path in sorted((DOCS / folder).glob("[!.]*.md")))
    of_pages = [entry for path in pages if ".zh" not in path.name for entry in of_page(path)]
    parts += ["## Algorithms, RLHF and results\n", grid(of_pages)]
    (TARGET / "gallery.md").write_text("\n".join(parts))

"""The cards of the start page: thumbnail, minutes and prerequisites of each notebook."""

import base64
import io
import json
import re
from pathlib import Path

from PIL import Image

from building.chinese import rows

DOCS = Path(__file__).parents[1]
SOURCE, TARGET = DOCS.parent / "notebooks", DOCS / "notebooks"
FIGURES = {  # the cell of each notebook whose figure is its thumbnail
    "01": "89405ffb",
    "02": "d60cea74",
    "03": "1223a382",
    "04": "9ebfa94e",
    "05": "89904b06",
    "06": "a57bfd96",
    "07": "492e11bb",
    "08": "56bb2fbe",
    "09": "90527c9b",
    "10": "47cf5374",
    "11": "2b216284",
    "12": "94088fde",
    "13": "4e97c084",
    "14": "8c59db16",
    "15": "db7aca58",
}


def small(figure: dict | Path) -> bytes:
    """A figure, from a cell of a notebook or a file, as a small PNG of 64 colours."""
    if isinstance(figure, Path):
        image = Image.open(figure)
    else:
        data = [output.get("data", {}) for output in figure["outputs"]]
        [picture] = [d[kind] for d in data for kind in ("image/png", "image/gif") if kind in d]
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
    if getattr(image, "is_animated", False):
        image.seek(image.n_frames // 2)
    image = image.convert("RGB")
    image.thumbnail((480, 300), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    # the default method of Pillow turns thin coloured lines into grey ones
    image.quantize(64, Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return file.getvalue()


def thumbnail(cells: list[dict], identifier: str) -> bytes:
    """The figure of one cell as a small PNG."""
    [cell] = [cell for cell in cells if cell["id"] == identifier]
    return small(cell)


def requirements(text: str) -> tuple[int, str]:
    """Minutes to read and the notebooks that are needed, from the first cell of a notebook."""
    [paragraph] = re.findall(r"\*\*It takes\*\*.*?(?:\n\n|\Z)", text, re.S)
    needed = [str(int(number)) for number in re.findall(r"\]\((\d\d)_\w+\.ipynb\)", paragraph)]
    if "all earlier notebooks" in paragraph:
        words = "needs all earlier notebooks"
    elif needed:
        words = f"needs notebook{'s' * (len(needed) > 1)} {', '.join(needed)}"
    else:
        words = "needs no earlier notebook"
    return int(re.findall(r"(\d+)\s+minutes", paragraph)[0]), words


def topics() -> dict[str, str]:
    """What a reader can explain after each notebook, from the list in README.md."""
    rows = re.findall(
        r"^\| \[[^\]]*\]\(notebooks/(\w+)\.ipynb\) \| (.*) \|$",
        (DOCS.parent / "README.md").read_text(),
        re.M,
    )
    return {name: text[0].upper() + text[1:] for name, text in rows if name[:2] in FIGURES}


def write_cards() -> None:
    """Write the cards and thumbnails into the folder of the copied notebooks, which must exist."""
    (TARGET / "thumbnails").mkdir()
    texts = {row["cell"]: row["alt"] for row in rows(DOCS / "figures.csv")}
    cards = []
    for name, topic in topics().items():
        cells = json.loads((SOURCE / f"{name}.ipynb").read_text())["cells"]
        first = "".join(cells[0]["source"])
        minutes, needs = requirements(first)
        title = re.findall(r"^# (.*)", first)[0]
        figure = FIGURES[name[:2]]
        (TARGET / "thumbnails" / f"{name[:2]}.png").write_bytes(thumbnail(cells, figure))
        cards.append(
            f":::{{grid-item-card}} {title}\n"
            f":img-top: notebooks/thumbnails/{name[:2]}.png\n"
            f":img-alt: {texts[figure]}\n"
            f":link: /notebooks/{name}\n:link-type: doc\n\n"
            f"{topic}.\n\n**{minutes} minutes**, {needs}.\n:::"
        )
    grid = "\n".join(
        ["::::{grid} 1 2 3 3", ":gutter: 3", ":class-container: notebook-cards", *cards, "::::"]
    )
    (TARGET / "cards.md").write_text(grid)

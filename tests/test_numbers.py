"""Every number in the text of a notebook is one that the notebook computes or that its code holds.

A number in the prose must be, rounded as it is written, a number in the outputs or in the code of
the same notebook. For pages of the docs, the sources are the tables of the page, which other tests
compare with the stored results, and the outputs of the notebooks. A number with another source is
listed with it in numbers.csv. A change of the numerics then shows which sentences it makes wrong.

Formulas, code, links, headings, years and the times that a notebook takes are not read. Numbers
from 1,000 on have a comma, so that four digits without one are a year.
"""

import bisect
import csv
import functools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = [
    *(ROOT / "docs" / "results" / name for name in ("control.md", "rlhf.md")),
    ROOT / "docs" / "reference" / "choices.md",
    *(ROOT / "docs" / "rlhf" / name for name in ("claims.md", "findings.md")),
]
NOT_PROSE = [
    r"(?s)```.*?```",
    r"`[^`]*`",
    r"(?s)\$\$.*?\$\$",
    r"(?s)\$[^$]*\$",
    r"\]\([^)]*\)",
    r"<[^>]*>",
    r"(?m)^#.*$",
    r"(?m)^\*\*\d+\.",
    r"(?m)^ *\d+\. ",
    r"\b(19|20)\d\d\b",
    r"arXiv:[\d.]+",
    r"(?s)\*\*It takes\*\*.*?\n\n",
]
WRITTEN = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?: ?%)?")
COMPUTED = re.compile(r"\d[\d_,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@functools.cache
def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@functools.cache
def sections():
    """The numbers of all sections, such as 8.4."""
    text = "\n".join(
        "".join(cell["source"]) for path in NOTEBOOKS for cell in cells(path, "markdown")
    )
    return set(re.findall(r"^#+ (\d+\.\d+)", text, flags=re.MULTILINE))


def without_formulas(text):
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text)
    return text


def numbers(text):
    """All numbers of some output, code or CSV, without signs, sorted."""
    found = set()
    for match in COMPUTED.findall(text):
        try:
            found.add(float(match.replace(",", "").replace("_", "")))
        except ValueError:
            found.update(float(part) for part in re.findall(r"\d+", match))
    return sorted(found)


def outputs(path):
    """The printed text of a notebook; pictures are not read."""
    texts = []
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            data = output.get("data", {})
            texts += [
                *output.get("text", []),
                *data.get("text/plain", []),
                *data.get("text/html", []),
            ]
            texts.append("\n")
    return re.sub(r"<[^>]*>", " ", "".join(texts))


def is_among(written, computed):
    """Whether a written number, such as `61,800` or `84 %`, is one of the computed, rounded."""
    digits, percent = written.rstrip(" %").replace(",", ""), written.endswith("%")
    value, _, exponent = digits.partition("e")
    step = 10.0 ** -len(value.partition(".")[2]) * 10.0 ** int(exponent or 0)
    if "." not in value and not exponent and len(value) > 2:  # 61,800 is rounded to hundreds
        step = 10.0 ** (len(value) - len(value.rstrip("0")))
    scales = (1, 100) if percent else (1,)
    for scale in scales:
        low, high = ((float(digits) + sign * 0.5001 * step) / scale for sign in (-1, 1))
        place = bisect.bisect_left(computed, low)
        if place < len(computed) and computed[place] <= high:
            return True
    return False


@functools.cache
def constants():
    with (ROOT / "tests" / "numbers.csv").open(newline="") as file:
        return {(row["file"], row["number"]): row["source"] for row in csv.DictReader(file)}


def unexplained(name, text, computed):
    """The written numbers that are not among the computed ones, with the words around them."""
    text = without_formulas(text)
    return [
        text[max(0, match.start() - 40) : match.end() + 20]
        for match in WRITTEN.finditer(text)
        if match.group() not in sections()
        and (name, match.group()) not in constants()
        and not is_among(match.group(), computed)
    ]


def notebook_text(path):
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))


def notebook_numbers(path):
    code = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    return numbers(code + "\n" + outputs(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_every_number_of_a_notebook_is_computed_in_it(path):
    assert unexplained(path.name, notebook_text(path), notebook_numbers(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_number_of_a_page_is_stored(path):
    lines = path.read_text().splitlines()
    tables, prose = (
        [line for line in lines if line.startswith("|") is is_table] for is_table in (True, False)
    )
    computed = numbers("\n".join([*tables, *map(outputs, NOTEBOOKS)]))
    assert unexplained(path.name, "\n".join(prose), computed) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_the_reading_time_is_that_of_its_words_and_its_code(path):
    """240 words per minute and 2 seconds per line of code, in steps of 5 minutes."""
    lines = sum(len("".join(cell["source"]).splitlines()) for cell in cells(path, "code"))
    minutes = len(notebook_text(path).split()) / 240 + lines / 30
    (stated,) = re.findall(r"(\d+)\s+minutes", "".join(cells(path, "markdown")[0]["source"]))
    assert abs(int(stated) - minutes) <= 3


def test_a_changed_number_is_noticed():
    computed = [0.3333, 0.841, 61_777.0]
    for right, wrong in (
        ("0.33", "0.34"),
        ("61,800", "61,700"),
        ("84 %", "85 %"),
        ("3e-1", "4e-1"),
    ):
        assert is_among(right, computed)
        assert not is_among(wrong, computed)


def test_every_listed_constant_is_used():
    texts = {path.name: without_formulas(notebook_text(path)) for path in NOTEBOOKS}
    texts |= {path.name: without_formulas(path.read_text()) for path in PAGES}
    for name, number in constants():
        assert number in {match.group() for match in WRITTEN.finditer(texts[name])}, (name, number)

"""The e-book, if `make epub` has built it: valid files, complete, with a table of contents."""

import posixpath
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

BOOK = Path(__file__).parents[2] / "docs" / "_build" / "epub" / "minirl.epub"


@pytest.fixture(scope="module")
def book():
    """The texts of the files, empty for pictures."""
    if not BOOK.exists():
        pytest.skip("the e-book is not built: run `make epub` first")
    with zipfile.ZipFile(BOOK) as archive:
        return {
            name: archive.read(name).decode() if name.endswith((".xhtml", ".opf")) else ""
            for name in archive.namelist()
        }


def test_the_book_is_valid_xml_with_formulas_all_pictures_and_no_dead_link(book):
    names = set(book)
    texts = {name: text for name, text in book.items() if name.endswith(".xhtml")}
    for name, text in texts.items():
        ElementTree.fromstring(re.sub(r"&(?!amp|lt|gt|quot|#)\w+;", " ", text))
        for picture in re.findall(r'<img[^>]* src="([^"]+)"', text):
            assert posixpath.normpath(posixpath.join(posixpath.dirname(name), picture)) in names
        for link in re.findall(r'<a[^>]* href="(?!\w+:)([^"#]+)', text):
            assert posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) in names
    assert texts["notebooks/03_trust_regions.xhtml"].count("<math") > 100


def test_the_contents_lead_to_every_section_and_show_no_latex(book):
    contents = book["nav.xhtml"]
    assert contents.count("<a ") > 400
    assert "2.3 The two ends: lambda = 0 and lambda = 1" in contents
    assert "\\" not in contents


def test_the_list_of_files_says_which_pages_have_formulas(book):
    item = r'href="([^"]+\.xhtml)"[^>]*?(properties="mathml")?\s*/>'
    items = re.findall(item, book["content.opf"])
    assert len(items) > 100
    for name, mathml in items:
        assert bool(mathml) is ("<math" in book[name]), name

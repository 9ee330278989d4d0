"""The e-book, if `make epub` has built it: well-formed XML, with formulas and all pictures."""

import posixpath
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

BOOK = Path(__file__).parents[2] / "docs" / "_build" / "epub" / "minirl.epub"


@pytest.mark.skipif(not BOOK.exists(), reason="the e-book is not built: run `make epub` first")
def test_the_book_is_valid_xml_with_formulas_and_all_pictures():
    with zipfile.ZipFile(BOOK) as book:
        names = set(book.namelist())
        texts = {name: book.read(name).decode() for name in names if name.endswith(".xhtml")}
    for name, text in texts.items():
        ElementTree.fromstring(re.sub(r"&(?!amp|lt|gt|quot|#)\w+;", " ", text))
        for picture in re.findall(r'<img[^>]* src="([^"]+)"', text):
            assert posixpath.normpath(posixpath.join(posixpath.dirname(name), picture)) in names
    assert texts["notebooks/03_trust_regions.xhtml"].count("<math") > 100

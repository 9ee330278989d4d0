"""The table of files in the docs is true: every file exists and is about as long as it says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "files.md"


def test_the_table_of_files_has_their_names_and_lengths():
    rows = re.findall(r"^\| \{mod\}`(.*?) <(.*?)>` \| (\d+) \|", PAGE.read_text(), re.M)
    assert len(rows) > 10
    for path, module, lines in rows:
        assert module == "minirl." + path.removesuffix(".py").replace("/", ".")
        length = len((ROOT / "minirl" / path).read_text().splitlines())
        assert abs(length - int(lines)) <= 0.1 * length, f"{path} has {length} lines"

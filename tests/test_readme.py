"""README's table of files is true: every file is there, about as long as it says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reading_table_names_files_and_their_lengths():
    rows = re.findall(r"^\| \[.*?\]\((.*?)\) \| (\d+) \|", (ROOT / "README.md").read_text(), re.M)
    assert len(rows) > 10
    for path, lines in rows:
        found = len((ROOT / path).read_text().splitlines())
        assert abs(found - int(lines)) <= 0.1 * found, f"{path} has {found} lines"

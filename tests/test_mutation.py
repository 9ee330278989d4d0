"""The pages about mutation testing speak of the code as it is."""

import csv
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = "cost|default|distribution|equal|guard|memory|rounding|tie|tolerance|typing"


def load_driver():
    path = ROOT / "benchmarks" / "mutation.py"
    spec = importlib.util.spec_from_file_location("mutation", path)
    driver = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(driver)
    return driver


def words(text):
    return " ".join(text.split())


def test_every_equivalent_mutant_changes_a_line_of_its_module_and_has_a_reason():
    with (ROOT / "tests" / "mutants-equivalent.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        source = (ROOT / "minirl" / f"{row['module']}.py").read_text()
        assert words(row["before"]) in words(source), row
        assert row["after"] != row["before"], row
        assert re.match(rf"({KINDS}): \w", row["reason"]), row


def test_modules_and_the_files_that_judge_them_are_there():
    driver = load_driver()
    for module in driver.MODULES:
        for path in (f"minirl/{module}.py", *driver.test_files(module)):
            assert (ROOT / path).is_file(), path


def test_the_page_holds_the_kept_table():
    driver = load_driver()
    page = (ROOT / "docs" / "tests.md").read_text()
    assert driver.table(driver.kept_rows()) in page

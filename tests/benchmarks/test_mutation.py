"""The pages about mutation testing describe the present code."""

import csv
import re
from pathlib import Path

import pytest

from benchmarks import mutation as driver

ROOT = Path(__file__).parents[2]
KINDS = "cost|default|distribution|equal|guard|memory|rounding|tie|tolerance|typing"


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


def test_modules_and_their_test_files_exist():
    for module in driver.MODULES:
        for path in (f"minirl/{module}.py", *driver.test_files(module)):
            assert (ROOT / path).is_file(), path


FILES = {
    "setup.cfg": "",
    "minirl/solvers.py": '"""Solve."""\nvalue = 1\n',
    "tests/test_solvers.py": "first",
    "tests/helpers.py": "first",
}


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """The module in a small tree, with mutants "dies" and "lives"; its calls of `judge`."""
    calls = []

    def judge(module, names):
        calls.append(names)
        return {name: 0 if name == "lives" else 1 for name in names}

    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(driver, "ROOT", tmp_path)
    monkeypatch.setattr(driver, "WORK", tmp_path / "work")
    monkeypatch.setattr(driver, "judge", judge)
    monkeypatch.setattr(driver, "mutants_of", lambda module: dict.fromkeys(("dies", "lives"), ()))
    driver.run("solvers", only_survivors=False)
    assert calls.pop() == ["dies", "lives"]
    driver.run("solvers", only_survivors=False)
    assert not calls  # nothing has changed
    return driver, calls


@pytest.mark.parametrize("name", list(FILES)[1:])
def test_a_module_is_run_again_when_it_its_tests_or_a_helper_has_changed(judged, name):
    driver, calls = judged
    (driver.ROOT / name).write_text("changed = 2")
    driver.run("solvers", only_survivors=False)
    assert calls == [["dies", "lives"]]


def test_after_a_pass_over_survivors_changed_tests_are_still_to_be_run_on_the_killed(judged):
    driver, calls = judged
    driver.run("solvers", only_survivors=True)
    driver.run("solvers", only_survivors=False)
    assert calls == [["lives"]]  # the tests are those that killed
    (driver.ROOT / "tests/test_solvers.py").write_text("changed")
    driver.run("solvers", only_survivors=True)
    driver.run("solvers", only_survivors=False)
    assert calls[1:] == [["lives"], ["dies", "lives"]]


def test_a_row_is_stale_when_the_code_of_its_module_has_changed(judged):
    driver, _ = judged
    rows = [{"module": "solvers", "source": driver.source_of("solvers")}]
    assert driver.changed_since(rows) == []
    path = driver.ROOT / "minirl/solvers.py"
    path.write_text(path.read_text().replace("Solve", "Find x"))
    assert driver.changed_since(rows) == []  # a docstring
    path.write_text(path.read_text().replace("1", "2"))
    assert driver.changed_since(rows) == ["solvers"]

"""The docs and the code agree: functions, tests, notebook sections, numbered steps."""

import csv
import functools
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "equations.csv").read_text().splitlines()
ROWS = list(csv.DictReader(TABLE, delimiter=";"))


def resolve(dotted):
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[cut:], module)
    raise AssertionError(f"{dotted} cannot be imported")


def test_there_is_an_equation_from_every_notebook():
    notebooks = (ROOT / "notebooks").glob("[0-9]*.ipynb")
    assert {row["section"].split(".")[0] for row in ROWS} == {
        str(int(path.name[:2])) for path in notebooks
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_function_test_and_section_exist(row):
    assert callable(resolve(row["function"]))
    file, name = row["test"].split("::")
    assert re.search(rf"^def {re.escape(name)}\(", (ROOT / file).read_text(), re.M), row["test"]
    number, _ = row["section"].split(".")
    [notebook] = (ROOT / "notebooks").glob(f"{int(number):02}_*.ipynb")
    assert re.search(rf'"## {re.escape(row["section"])} ', notebook.read_text()), row["section"]


GLOSSARY = (ROOT / "docs" / "glossary.csv").read_text().splitlines()
TERMS = list(csv.DictReader(GLOSSARY, delimiter=";"))


def test_the_glossary_is_in_alphabetical_order_and_defines_a_form_once():
    names = [row["term"].lower() for row in TERMS]
    assert names == sorted(names)
    forms = [
        form.lower() for row in TERMS for form in [row["term"], *row["also"].split("|")] if form
    ]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize("row", TERMS, ids=lambda row: row["term"])
def test_a_term_is_used_in_the_section_that_introduces_it(row):
    assert row["definition"].endswith(".")
    assert row["hover"] in ("yes", "no")
    assert not row["function"] or callable(resolve(row["function"]))
    number, _ = row["section"].split(".")
    [notebook] = (ROOT / "notebooks").glob(f"{int(number):02}_*.ipynb")
    cells = json.loads(notebook.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    [section] = re.findall(rf"^## {re.escape(row['section'])} (?:.|\n)*?(?=^## |\Z)", text, re.M)
    words = " ".join(section.replace("*", "").lower().split())
    assert any(form and form.lower() in words for form in [row["term"], *row["also"].split("|")])


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh.md", "CHANGELOG.md", "docs/index.md", "docs/zh.md"]
)
def test_a_first_page_says_that_the_notebooks_run_in_the_browser(name):
    text = " ".join((ROOT / name).read_text().split())
    assert "在浏览器中运行" in text if ".zh" in name or "/zh" in name else "Run in browser" in text
    assert "about 39 MB" in text or "约需加载 39 MB" in text


@pytest.mark.parametrize("name", ["policy_gradient", "natural_gradient", "trpo", "ppo"])
def test_the_pseudocode_has_the_numbers_and_words_of_the_comments(name):
    code = (ROOT / "minirl" / "algorithms" / f"{name}.py").read_text()
    page = (ROOT / "docs" / "algorithms" / f"{name.replace('_', '-')}.md").read_text()
    comments = re.findall(r"# (\(\d\)) (.*)", code)
    assert len(comments) >= 4
    assert re.findall(r"^\| (\(\d\)) \| (.*?) \|", page, re.M) == comments


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("rlhf/sft", "supervised-fine-tuning"),
        ("rlhf/reward_model", "reward-model"),
        ("rlhf/dpo", "dpo"),
        ("training", "rlhf"),
    ],
)
def test_numbered_steps_are_as_many_in_the_page_as_in_the_code(name, page):
    code = (ROOT / "minirl" / f"{name}.py").read_text()
    text = (ROOT / "docs" / "rlhf" / f"{page}.md").read_text()
    pseudocode = text.split("## Pseudocode")[1].split("\n## ")[0]
    steps = re.findall(r"# \((\d)\)", code)
    assert len(steps) >= 3
    assert steps == re.findall(r"^(\d)\. ", pseudocode, re.M) == sorted(steps)

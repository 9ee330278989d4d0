"""The notebooks as they are stored, and every exercise's check against right and wrong answers.

Running the notebooks themselves is `make execute`.
"""

import csv
import functools
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))


def named(path):
    return path.parent.name[:3] + "-" + path.stem[:2]


def cells(path, kind):
    found = json.loads(path.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def source(path, kind):
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, kind))


def stored_verdicts(path):
    printed = [
        "".join(output.get("text", output.get("data", {}).get("text/plain", [])))
        for cell in cells(path, "code")
        for output in cell["outputs"]
    ]
    return re.findall(r"\b(?:Right\.|Not yet).*", "\n".join(printed))


def checks_of(path):
    return importlib.import_module(f"minirl.exercises.{path.stem[3:]}")


def test_each_notebook_has_a_number_of_its_own_and_solutions():
    assert len({path.name[:2] for path in NOTEBOOKS}) == len(NOTEBOOKS) >= 12
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=named)
def test_stored_outputs_are_those_of_one_clean_run(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=named)
def test_outputs_are_small_enough_for_the_forge(path):
    assert path.stat().st_size < 2e6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_the_first_cell_says_what_it_teaches_and_what_it_takes(path):
    first = "".join(json.loads(path.read_text())["cells"][0]["source"])
    assert first.startswith(f"# {int(path.name[:2])} · ")
    assert "After this notebook you can explain" in first
    assert "It takes" in first


@pytest.mark.parametrize("path", SOLUTIONS, ids=named)
def test_solutions_bear_the_title_of_their_notebook(path):
    ours, theirs = (
        source(of, "markdown").splitlines()[0] for of in (path, path.parents[1] / path.name)
    )
    assert ours == theirs.replace("# ", "# Solutions ", 1)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=named)
def test_each_exercise_has_a_number_and_a_name(path):
    numbers = re.findall(r"^\*\*(\d)\. \w", source(path, "markdown"), flags=re.MULTILINE)
    assert numbers == [str(1 + index) for index in range(len(checks_of(path).__all__))]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=named)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", source(path, "markdown")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_each_figure_has_a_caption_and_an_alternative_text(path):
    with (ROOT / "docs" / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    ours = [row for row in rows if row["notebook"] == path.name[:2]]
    images = {"image/png", "image/gif"}
    figures = [
        cell["id"]
        for cell in cells(path, "code")
        if any(images & set(output.get("data", {})) for output in cell["outputs"])
    ]
    assert [row["cell"] for row in ours] == figures
    for row in ours:
        assert row["caption"].endswith((".", "?")), row
        assert len(row["caption"].split()) > 10, f"{row}: say what is shown, not only the title"
        plain = "$" not in row["caption"] + row["alt"]
        assert plain, f"{row}: captions and alternative texts are plain text"
        assert len(row["alt"]) > 80, f"{row}: say what the picture shows"
        assert row["alt"] != row["caption"], row


@pytest.mark.parametrize("number", ["06", "09"])
def test_colours_have_names(number):
    """A place in the colour cycle would give a curve the colour of TRPO or PPO by accident."""
    [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    assert not re.findall(r"""["']C\d""", source(path, "code"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_each_exercise_is_posed_and_stands_unanswered(path):
    code = source(path, "code")
    stored = json.dumps([cell["outputs"] for cell in cells(path, "code")])
    exercises = checks_of(path).__all__
    assert 3 <= len(exercises) <= 5
    for name in exercises:
        assert f"check.{name}(" in code
    assert stored.count("Not answered yet") == len(exercises)


@pytest.mark.parametrize("path", SOLUTIONS, ids=named)
def test_each_check_passes_the_solution_and_fails_the_mistake(path, monkeypatch):
    checks = checks_of(path)
    outcomes, messages = {name: [] for name in checks.__all__}, []

    def recording(name, check):
        @functools.wraps(check)
        def recorded(answer):
            verdict = check(answer)
            outcomes[name].append(verdict.outcome)
            messages.append(verdict.message)
            return verdict

        return recorded

    for name in checks.__all__:
        monkeypatch.setattr(checks, name, recording(name, getattr(checks, name)))
    monkeypatch.chdir(path.parent)
    exec(compile(source(path, "code"), path.name, "exec"), {"__name__": "__main__"})
    for name, found in outcomes.items():
        assert {"right", "wrong"} <= set(found), f"{name}: {found}"
        assert found[0] == "right", f"{name}: the solution comes first, it was {found[0]}"
    assert stored_verdicts(path) == messages, "stale; mend: notebooks/execute.py --store solutions"

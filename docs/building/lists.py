"""Writes the lists: the metrics, and the equations with their functions and tests."""

import re
from functools import cache
from pathlib import Path

import nbformat
from mdit_py_plugins.anchors.index import slugify

from building.chinese import rows
from minirl.support.metrics import GLOSSARY

DOCS = Path(__file__).parents[1]


def write_metrics() -> None:
    entries = [
        f"`{name}`{f' ({metric.unit})' if metric.unit else ''}\n: {metric.meaning}. "
        f"*Healthy:* {metric.healthy}.\n"
        for name, metric in GLOSSARY.items()
    ]
    (DOCS / "reference" / "metrics-list.md").write_text("\n".join(entries))


def anchor(heading: str) -> str:
    """The anchor that MyST gives to a heading; it leaves formulas out."""
    return slugify(re.sub(r"\$[^$]*\$|`", "", heading))


@cache
def text_cells(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def section_link(section: str) -> str:
    """A link to the section of a notebook that is numbered like 3.4."""
    [notebook] = (DOCS / "notebooks").glob(f"{int(section.split('.')[0]):02}_*.ipynb")
    for text in text_cells(notebook):
        if heading := re.search(rf"^## ({re.escape(section)} .*)", text, re.M):
            return f"[{section}](../notebooks/{notebook.name}#{anchor(heading[1])})"
    raise ValueError(f"{notebook.name} has no section {section}")


def write_equations() -> None:
    """equations.csv as a list under the titles of the notebooks."""
    lines, current = [], ""
    for row in rows(DOCS / "equations.csv"):
        number = row["section"].split(".")[0]
        if number != current:
            lines.append(f"## Notebook {number}\n")
            current = number
        equation = row["equation"] if "$" in row["equation"] else f"${row['equation']}$"
        tests, name = row["test"].split("::")
        lines.append(
            f"{row['name']}, {section_link(row['section'])}\n: {equation}\n\n"
            f"  {{py:obj}}`{row['function']}`\n\n  `{name}` in `{tests}`\n"
        )
    (DOCS / "reference" / "equations-list.md").write_text("\n".join(lines))

"""The Chinese notebooks: text of `notebooks/zh/NN_name.md`, code cells of the English notebook.

A file of texts has one block per text cell, in the same order. A block begins with the line
`<!-- cell ID HASH -->`: the identifier of the cell, and the first eight hexadecimal digits of the
SHA-256 of its English source. `tests/test_chinese.py` compares the two editions.

    python docs/building/chinese.py --skeleton 01   add blocks for new cells, with the English text
    python docs/building/chinese.py --stamp 01      renew the hashes after a review of the Chinese
"""

import argparse
import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
SOURCE, TARGET = DOCS.parent / "notebooks", DOCS / "notebooks"
BUTTONS = {
    "the code of this figure": "绘图代码",
    "the code and its output": "代码和输出",
    "the code": "代码",
}


def english_cells(name: str) -> dict[str, str]:
    """The text cells of the English notebook: identifier and source."""
    cells = json.loads((SOURCE / f"{name}.ipynb").read_text())["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def blocks(name: str) -> dict[str, tuple[str, str]]:
    """The blocks of a file of Chinese texts: identifier, hash and text."""
    path = SOURCE / "zh" / f"{name}.md"
    text = path.read_text() if path.exists() else ""
    parts = re.split(r"^<!-- cell (\w+) (\w*) -->\n", text, flags=re.M)[1:]
    identifiers = parts[::3]
    if len(set(identifiers)) < len(identifiers):
        raise ValueError(f"zh/{name}.md has two blocks for one cell: {identifiers}")
    return {i: (h, t.strip()) for i, h, t in zip(*[iter(parts)] * 3, strict=True)}


def write(name: str, texts: dict[str, tuple[str, str]]) -> None:
    content = "\n".join(f"<!-- cell {i} {h} -->\n{t}\n" for i, (h, t) in texts.items())
    (SOURCE / "zh" / f"{name}.md").write_text(content)


def without_breaks(text: str) -> str:
    """Text whose line breaks do not become spaces between Chinese characters or after a mark."""
    wide, mark = "[\u3000-\u9fff\uff00-\uffef“”]", "[，。；：、？！）]"
    block = r"[*+-] |\d+\. |[|#:<]|\$\$|```"  # a list, table, heading, formula or fence begins
    return re.sub(rf"(?<={wide})\n *(?={wide})|(?<={mark})\n *(?=\S)(?!{block})", "", text)


def deeper(text: str) -> str:
    """Text of `notebooks/` with links that are right one folder deeper, in `notebooks/zh/`."""

    def link(match: re.Match[str]) -> str:
        translated = (SOURCE / "zh" / match[1]).with_suffix(".md").exists()
        return match[0] if translated else f"](../{match[1]}"

    return re.sub(r"\]\(((?:\.\./|solutions/)[^)]*|\d\d_\w+\.ipynb)", link, text)


def page_text(text: str) -> str:
    """Chinese text for a page: links one folder deeper, and no spaces at line ends."""
    from building.notebooks import as_page  # needs nbformat, the commands above do not

    return without_breaks(deeper(as_page(text)))


def linked(text: str, label: str, target: str) -> str:
    """Text of the first cell, with a link to the other edition below its title."""
    title, rest = text.split("\n", 1)
    return f"{title}\n\n[{label}]({target})\n{rest}"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def figure_texts() -> dict[str, dict[str, str]]:
    """Caption, alternative text and hash of the English texts of each figure, by its cell."""
    return {row["cell"]: row for row in rows(SOURCE / "zh" / "figures.csv")}


def figure_digests() -> dict[str, str]:
    """Hash of today's English caption and alternative text of each figure, by its cell."""
    english = rows(DOCS / "figures.csv")
    return {row["cell"]: digest(f"{row['caption']} {row['alt']}") for row in english}


def stamp_figures(number: str) -> None:
    """Renew the hashes of the figures of one notebook."""
    texts, today = figure_texts(), figure_digests()
    for row in texts.values():
        if row["notebook"] == number:
            row["english"] = today[row["cell"]]
    with (SOURCE / "zh" / "figures.csv").open("w", newline="") as file:
        columns = ["notebook", "cell", "english", "caption", "alt"]
        writer = csv.DictWriter(file, columns, delimiter=";", lineterminator="\n")
        writer.writeheader()
        writer.writerows(texts.values())


def merge(notebook: dict[str, Any], texts: dict[str, tuple[str, str]]) -> None:
    """Put the Chinese texts into a copy of the English page."""
    figures = figure_texts()
    for cell in notebook["cells"]:
        if cell["id"] in texts:
            cell["source"] = page_text(texts[cell["id"]][1])
        options = cell["metadata"].get("mystnb", {})
        if "figure" in options:
            options["figure"]["caption"] = figures[cell["id"]]["caption"]
            options["image"]["alt"] = figures[cell["id"]]["alt"]
        for option, verb in {"code_prompt_show": "显示", "code_prompt_hide": "隐藏"}.items():
            if option in options:
                options[option] = verb + BUTTONS[options[option].split(" ", 1)[1]]


def copy_chinese() -> None:
    """Write the Chinese pages and their list, and on every page a link to the other edition."""
    (TARGET / "zh").mkdir(exist_ok=True)
    for path in sorted((SOURCE / "zh").glob("[0-9]*.md")):
        english = TARGET / f"{path.stem}.ipynb"
        page, chinese = json.loads(english.read_text()), json.loads(english.read_text())
        merge(chinese, blocks(path.stem))
        for notebook, label, target, file in [
            (page, "中文版", f"zh/{english.name}", english),
            (chinese, "English", f"../{english.name}", TARGET / "zh" / english.name),
        ]:
            first = notebook["cells"][0]
            first["source"] = linked("".join(first["source"]), label, target)
            file.write_text(json.dumps(notebook, ensure_ascii=False, indent=1))
    (TARGET / "list.zh.md").write_text(notebook_list())


def notebook_list() -> str:
    """The notebooks as README.zh.md lists them, with links to the Chinese pages and minutes."""
    readme = (DOCS.parent / "README.zh.md").read_text()
    titles = re.findall(r"^\| \[(.+)\]\(notebooks/(\w+)\.ipynb\) \| (.+) \|$", readme, re.M)
    lines = []
    for title, name, question in titles:
        folder, language = ("zh/", "") if blocks(name) else ("", "英文，")
        minutes = re.search(r"(\d+)\s+minutes", next(iter(english_cells(name).values())))[1]
        note = f"{language}{minutes} 分钟"
        lines.append(f"* [{title}](notebooks/{folder}{name}.ipynb)（{note}）：{question}\n")
    return "".join(lines)


def is_chinese(pagename: str) -> bool:
    return pagename == "zh" or pagename.endswith(".zh") or pagename.startswith("notebooks/zh/")


def mark_chinese(text: str) -> str:
    """HTML of an English page, with lang="zh" on links and captions in Chinese."""
    element = r"<(a|span)\b((?:(?!\blang=)[^>])*)>(?=[^<]*[\u4e00-\u9fff])"
    return re.sub(element, r'<\1\2 lang="zh">', text)


def set_language(
    app: Any, pagename: str, template: str, context: dict[str, Any], tree: Any
) -> None:
    if is_chinese(pagename):
        context["language"] = "zh"
        body = context.get("body", "")
        context["body"] = body.replace(">English</", ' lang="en">English</', 1)
        tree = mark_chinese(context.get("furo_navigation_tree", ""))
        context["furo_navigation_tree"] = f'<div lang="en">{tree}</div>'
    else:
        for part in {"body", "furo_navigation_tree"} & set(context):
            context[part] = mark_chinese(context[part])
    if "html_tag" in context:  # the e-book
        language = f'<html lang="{context["language"]}" xml:lang="{context["language"]}"'
        context["html_tag"] = context["html_tag"].replace("<html", language, 1)


def join_lines(app: Any, pagename: str, source: list[str]) -> None:
    if is_chinese(pagename) and not pagename.startswith("notebooks/"):
        source[0] = without_breaks(source[0])


def setup(app: Any) -> None:
    """Sphinx calls this: `building.chinese` is one of the extensions."""
    app.connect("html-page-context", set_language, priority=850)  # after the theme
    app.connect("source-read", join_lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_mutually_exclusive_group(required=True)
    commands.add_argument("--skeleton", metavar="NN")
    commands.add_argument("--stamp", metavar="NN")
    arguments = parser.parse_args()
    [notebook_path] = SOURCE.glob(f"{arguments.skeleton or arguments.stamp}_*.ipynb")
    stem = notebook_path.stem
    cells, old = english_cells(stem), blocks(stem)
    if arguments.stamp:
        write(stem, {i: (digest(cells[i]), text) for i, (_, text) in old.items()})
        stamp_figures(stem[:2])
    else:
        write(stem, {i: old.get(i, (digest(text), text)) for i, text in cells.items()})

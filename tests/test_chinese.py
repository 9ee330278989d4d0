"""The Chinese notebooks say what the English ones say: cells, numbers, formulas, links, code."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("chinese", ROOT / "docs" / "building" / "chinese.py")
chinese = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(chinese)

NAMES = sorted(path.stem for path in (ROOT / "notebooks" / "zh").glob("*.md"))
WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
VALUES = {word: str(value) for value, word in enumerate(WORDS.split())}
VALUES |= {
    "sixteen": "16",
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "eighty": "80",
}
VALUES |= {"hundred": "100", "thousand": "1000", "first": "1", "second": "2", "third": "3"}
FENCE, FORMULA, CODE = r"```.*?```", r"\$\$.*?\$\$|\$[^$]+\$", r"`[^`]+`"


def parts(pattern, text):
    """The parts of a text that match, and the rest.

    The parts are compared without line breaks and without the words within formulas.
    """
    found = [re.sub(r"\s+", " ", part) for part in re.findall(pattern, text, re.S)]
    found = [re.sub(r"\\text\{[^{}]*[ \u3000-\uffef][^{}]*\}", "words", part) for part in found]
    return found, re.sub(pattern, " ", text, flags=re.S)


def contents(text):
    """What both editions must share, and the prose that remains."""
    fences, text = parts(FENCE, text)
    code, text = parts(CODE, text)
    formulas, text = parts(FORMULA, text)
    links, text = parts(r"\]\([^)]+\)", text)
    headings = re.findall(r"^(#+) ([\d.]*)", text, re.M)
    shared = {"fences": fences, "headings": headings, "code": Counter(code)}
    shared |= {"formulas": Counter(formulas), "links": Counter(links)}
    shared["table rows"] = re.findall(r"^\|", text, re.M)
    return shared, text


def numbers(prose):
    """The numbers in a text; 21 million is 2100 times ten thousand, as Chinese counts."""
    prose = re.sub(r"([\d.]+)\s+million", lambda match: f"{100 * float(match[1]):.0f}", prose)
    return Counter(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?", prose))


def missing(some, others):
    return sorted((some - others).elements())


def printed_asterisks(text):
    """Emphasis that Markdown overlooks: between punctuation inside and a letter outside."""
    text = re.sub(CODE, "`", re.sub(FORMULA, "$", re.sub(FENCE, " ", text, flags=re.S), flags=re.S))
    return [
        match[0]
        for match in re.finditer(r"(?<=(.))(\*+)(?!\s)([^*]+)\2(?=(.))", f" {text} ", re.S)
        for outer, inner in [(match[1], match[3][0]), (match[4], match[3][-1])]
        if outer.isalnum() and not inner.isalnum()
    ]


def differences(english, translation):
    """What a Chinese text lacks or adds, one line each."""
    (shared, prose), (shared_zh, prose_zh) = contents(english), contents(translation)
    wrong = [
        f"{kind}: English has {shared[kind]}, Chinese has {shared_zh[kind]}"
        if isinstance(shared[kind], list)
        else f"{kind}: missing {missing(shared[kind], shared_zh[kind])}, "
        f"added {missing(shared_zh[kind], shared[kind])}"
        for kind in shared
        if shared[kind] != shared_zh[kind]
    ]
    written_out = {VALUES[word] for word in re.findall(r"[a-z]+", prose.lower()) if word in VALUES}
    lost = missing(numbers(prose), numbers(prose_zh))
    added = [n for n in missing(numbers(prose_zh), numbers(prose)) if n not in written_out]
    if lost or added:
        wrong.append(f"numbers: missing {lost}, added {added}")
    if re.search(r"[A-Za-z]{4}", prose) and not re.search("[\u4e00-\u9fff]", prose_zh):
        wrong.append("the text is not translated")
    if printed := printed_asterisks(translation):
        wrong.append(f"Markdown prints the asterisks of {printed}; add a space")
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_there_is_one_block_per_text_cell_in_the_same_order(name):
    advice = f"`python docs/building/chinese.py --skeleton {name[:2]}` adds the missing blocks"
    assert list(chinese.blocks(name)) == list(chinese.english_cells(name)), advice


@pytest.mark.parametrize("name", NAMES)
def test_the_english_text_is_the_one_that_was_translated(name):
    cells = chinese.english_cells(name)
    changed = {i for i, (old, _) in chinese.blocks(name).items() if old != chinese.digest(cells[i])}
    titles = [f"{i} ({cells[i][:60]!r})" for i in cells if i in changed]
    assert not titles, (
        f"the English text of {titles} has changed since notebooks/zh/{name}.md was written; "
        f"revise the Chinese, then run `python docs/building/chinese.py --stamp {name[:2]}`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_numbers_formulas_links_and_code_are_those_of_the_english_text(name):
    cells = chinese.english_cells(name)
    wrong = {i: differences(cells[i], text) for i, (_, text) in chinese.blocks(name).items()}
    wrong = {i: lines for i, lines in wrong.items() if lines}
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)


@pytest.mark.parametrize(
    ("translation", "complaint"),
    [
        ("## 1.3 一\n\n十二个 3.5，$x^2$，`a`，[书](b.md)。", None),
        ("## 1.4 一\n\n十二个 3.5，$x^2$，`a`，[书](b.md)。", "headings"),
        ("## 1.3 一\n\n十二个 3.4，$x^2$，`a`，[书](b.md)。", "numbers"),
        ("## 1.3 一\n\n13 个 3.5，$x^2$，`a`，[书](b.md)。", "numbers"),
        ("## 1.3 一\n\n12 个 3.5，$x^2$，`a`，[书](b.md)。", None),
        ("## 1.3 一\n\n十二个 3.5，$x^3$，`a`，[书](b.md)。", "formulas"),
        ("## 1.3 一\n\n十二个 3.5，$x^2$，`b`，[书](b.md)。", "code"),
        ("## 1.3 一\n\n十二个 3.5，$x^2$，`a`，[书](c.md)。", "links"),
        ("## 1.3 One\n\nTwelve times 3.5, $x^2$, `a`, [book](b.md).", "not translated"),
        ("## 1.3 一\n\n十二个 3.5，**$x^2$，`a`。**见[书](b.md)。", "asterisks"),
        ("## 1.3 一\n\n十二个 3.5，要**$x^2$**和 `a`，见[书](b.md)。", "asterisks"),
        ("## 1.3 一\n\n十二个 3.5，要 **$x^2$** 和 `a`，*见*[书](b.md)。", None),
    ],
)
def test_a_difference_is_found(translation, complaint):
    english = "## 1.3 One\n\nTwelve times 3.5, $x^2$, `a`, [book](b.md)."
    found = differences(english, translation)
    assert not found if complaint is None else [line for line in found if complaint in line]


def test_words_within_a_formula_are_translated():
    english = r"One $x \text{ where it ends}$."
    assert not differences(english, r"一 $x \text{（结束处）}$。")
    assert differences(english, r"一 $y \text{（结束处）}$。")
    assert differences(r"One $\pi_{\text{ref}}$.", r"一 $\pi_{\text{old}}$。")


def test_texts_survive_writing(tmp_path, monkeypatch):
    (tmp_path / "zh").mkdir()
    monkeypatch.setattr(chinese, "SOURCE", tmp_path)
    texts = {"a1": ("01234567", "# 一\n\n二"), "b2": ("89abcdef", "三")}
    chinese.write("01_a", texts)
    assert chinese.blocks("01_a") == texts


def test_the_start_page_lists_every_notebook_with_its_minutes():
    lines = chinese.notebook_list().splitlines()
    english = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [
        re.search(r"\]\(notebooks/(?:zh/)?(\w+)\.ipynb\)", line)[1] for line in lines
    ] == english
    for name, line in zip(english, lines, strict=True):
        assert (f"(notebooks/zh/{name}.ipynb)" in line) == (name in NAMES)
        assert re.search(r"\d+ 分钟）：.", line)


def test_chinese_pages_say_their_language():
    pages = ["zh", "rlhf/claims.zh", "notebooks/zh/01_a", "notebooks/01_a", "rlhf/claims", "index"]
    contexts = {page: {"language": "en"} for page in pages}
    for page, context in contexts.items():
        chinese.set_language(None, page, "page.html", context, None)
    assert [context["language"] for context in contexts.values()] == ["zh"] * 3 + ["en"] * 3


def test_what_is_in_the_other_language_says_so():
    element = '<a href="x"><span class="doc">{}</span></a>'
    english = {"language": "en", "furo_navigation_tree": '<a href="zh.html">中文首页</a>'}
    english["body"] = element.format("中文版") + element.format("PPO") + "<p>中文</p>"
    chinese.set_language(None, "notebooks/04_ppo", "page.html", english, None)
    assert english["body"].count('lang="zh"') == 1
    assert '<span class="doc" lang="zh">中文版<' in english["body"]
    assert english["furo_navigation_tree"] == '<a href="zh.html" lang="zh">中文首页</a>'
    page = {"language": "en", "body": element.format("English") + element.format("中文")}
    chinese.set_language(None, "notebooks/zh/04_ppo", "page.html", page, None)
    assert page["body"].count("lang=") == 1
    assert '<span class="doc" lang="en">English<' in page["body"]


def test_the_pages_of_the_book_say_their_language():
    for page, language in [("zh", "zh"), ("index", "en")]:
        context = {"language": "en", "html_tag": '<html xmlns="x">', "body": ""}
        chinese.set_language(None, page, "page.html", context, None)
        assert context["html_tag"] == f'<html lang="{language}" xml:lang="{language}" xmlns="x">'


def test_line_breaks_do_not_become_spaces():
    text = "一句，\n**二**。\n$x$ 三\n`c` 四\n五：\n* 六；\n\n1. 九，\n   KL。\n2. 十\n\n|十。|"
    lines = "一句，**二**。$x$ 三\n`c` 四五：\n* 六；\n\n1. 九，KL。\n2. 十\n\n|十。|"
    assert chinese.without_breaks(text) == lines


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_have_chinese_captions_of_todays_english_ones(name):
    texts, today = chinese.figure_texts(), chinese.figure_digests()
    for row in chinese.rows(ROOT / "docs" / "figures.csv"):
        if row["notebook"] == name[:2]:
            chinese_row = texts[row["cell"]]
            assert chinese_row["english"] == today[row["cell"]], (
                f"revise {chinese_row} in notebooks/zh/figures.csv; the English texts are {row}"
            )
            assert not differences(row["caption"], chinese_row["caption"])
            assert not differences(row["alt"], chinese_row["alt"])

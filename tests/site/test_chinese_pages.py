"""Chinese pages are made from the English notebooks and the Chinese texts."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "notebooks" / "zh").glob("*.md"))


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from building import chinese

    return chinese


def test_links_lead_one_folder_up(chinese, tmp_path, monkeypatch):
    (tmp_path / "zh").mkdir()
    (tmp_path / "zh" / "01_a.md").touch()
    monkeypatch.setattr(chinese, "SOURCE", tmp_path)
    links = "[a](01_a.ipynb) [b](02_b.ipynb#2-1) [c](solutions/01_a.ipynb) [d](../docs/x/y.md)"
    assert chinese.page_text(links + " [`e`](../minirl/exact/tabular.py)。\n你") == (
        "[a](01_a.ipynb) [b](../02_b.ipynb#2-1) [c](../solutions/01_a.ipynb) "
        "[d](../../x/y.md) {mod}`e <minirl.exact.tabular>`。你"
    )


def test_a_chinese_page_has_the_english_code_and_both_pages_have_a_link(
    chinese, tmp_path, monkeypatch
):
    monkeypatch.setattr(chinese, "TARGET", tmp_path)
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        shutil.copy(path, tmp_path)
    chinese.copy_chinese()
    assert sorted(path.stem for path in (tmp_path / "zh").iterdir()) == NAMES
    for name in NAMES:
        english = json.loads((tmp_path / f"{name}.ipynb").read_text())["cells"]
        translated = json.loads((tmp_path / "zh" / f"{name}.ipynb").read_text())["cells"]
        assert [c["id"] for c in translated] == [c["id"] for c in english]
        for cell, other in zip(english, translated, strict=True):
            if cell["cell_type"] == "code":
                assert (cell["source"], cell["outputs"]) == (other["source"], other["outputs"])
        assert f"\n\n[中文版](zh/{name}.ipynb)\n" in english[0]["source"]
        assert f"\n\n[English](../{name}.ipynb)\n" in translated[0]["source"]

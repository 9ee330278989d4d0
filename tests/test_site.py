"""Pages know their source, and the start page what a notebook requires."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def building(monkeypatch):
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    monkeypatch.syspath_prepend(ROOT / "docs")
    from building import cards, site

    return cards, site


@pytest.mark.parametrize(
    "page",
    [
        "index",
        "rlhf/dpo",
        "notebooks/01_policy_gradient",
        "notebooks/solutions/02_advantages",
        "notebooks/zh/03_trust_regions",
    ],
)
def test_a_page_is_edited_where_its_source_is(building, page):
    _, site = building
    assert (ROOT / site.source(page)).exists()


def test_only_notebooks_of_github_open_in_colab(building, monkeypatch):
    _, site = building
    monkeypatch.setattr(site, "REPOSITORY", "https://github.com/someone/minirl")
    address = (
        "https://colab.research.google.com/github/someone/minirl/blob/main/notebooks/04_ppo.ipynb"
    )
    assert address in site.colab("notebooks/04_ppo")
    assert site.colab("rlhf/dpo") == ""
    monkeypatch.setattr(site, "REPOSITORY", "https://example.org/minirl")
    assert site.colab("notebooks/04_ppo") == ""


def test_every_notebook_has_a_card_with_its_minutes_and_needs(building):
    cards, _ = building
    assert sorted(cards.topics()) == sorted(
        p.stem for p in (ROOT / "notebooks").glob("[01]*.ipynb")
    )
    text = "**It takes** [notebook 3](03_trust_regions.ipynb), about 40 minutes of reading.\n\n"
    assert cards.requirements(text) == (40, "needs notebook 3")
    text = (
        "**It takes** [1](01_policy_gradient.ipynb) and [3](03_x.ipynb); about 35\nminutes to read."
    )
    assert cards.requirements(text) == (35, "needs notebooks 1, 3")
    text = "**It takes** no earlier notebook; about 35 minutes to read."
    assert cards.requirements(text) == (35, "needs no earlier notebook")

"""Pages know their source, and the start page what a notebook requires."""

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def building(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from building import cards, site

    return cards, site


@pytest.fixture
def buttons(building):
    from building import lite

    return lite.BUTTONS


@pytest.mark.parametrize(
    "page",
    [
        "index",
        "rlhf/dpo",
        "notebooks/01_policy_gradient",
        "notebooks/solutions/02_advantages",
        "notebooks/zh/03_trust_regions",
        "reference/api",
        "reference/api/minirl.rlhf",
        "reference/api/minirl.rlhf.dpo",
    ],
)
def test_a_page_is_edited_where_its_source_is(building, page):
    _, site = building
    assert (ROOT / site.source(page)).exists()


def test_only_notebooks_of_github_open_in_colab(building, buttons, monkeypatch):
    _, site = building
    monkeypatch.setattr(site, "REPOSITORY", "https://github.com/someone/minirl")
    address = (
        "https://colab.research.google.com/github/someone/minirl/blob/main/notebooks/04_ppo.ipynb"
    )
    assert f'{address}">Open in Colab</a>\n<span>' in site.add_colab("notebooks/04_ppo", buttons)
    assert site.add_colab("rlhf/dpo", buttons) == buttons
    chinese = site.add_colab("notebooks/zh/04_ppo", buttons)
    assert f'{address}">在 Colab 中打开英文版</a>\n<span>' in chinese
    monkeypatch.setattr(site, "REPOSITORY", "https://example.org/minirl")
    assert site.add_colab("notebooks/04_ppo", buttons) == buttons


@pytest.mark.parametrize("page", ["notebooks/04_ppo", "notebooks/zh/04_ppo"])
def test_the_kernel_in_colab_finds_the_installed_package(building, buttons, monkeypatch, page):
    _, site = building
    monkeypatch.setattr(site, "REPOSITORY", "https://github.com/someone/textbook")
    hint = site.add_colab(page, buttons).partition("<span>")[2]
    assert "pip install ./minirl<" in hint  # with -e, only the next kernel finds it
    assert "git clone https://github.com/someone/textbook minirl " in hint


def test_listings_of_source_code_are_not_in_the_sitemap(building, monkeypatch):
    _, site = building
    monkeypatch.setattr(site, "SITE", "https://example.org/minirl")
    config = SimpleNamespace()
    site.configure(None, config)

    def excluded(page):
        return any(fnmatch(page, pattern) for pattern in config.sitemap_excludes)

    assert excluded("_modules/minirl/rlhf/dpo.html")
    assert excluded("py-modindex.html")
    assert not excluded("rlhf/dpo.html")


@pytest.mark.parametrize(
    ("repository", "verb"),
    [
        ("https://github.com/someone/minirl", "edit"),
        ("https://gitlab.com/someone/minirl", "-/edit"),
        ("https://gitlab.example.org/someone/minirl", "-/edit"),
        ("https://codeberg.org/someone/minirl", "_edit"),
    ],
)
def test_an_edit_link_is_written_as_its_host_expects(building, monkeypatch, repository, verb):
    _, site = building
    monkeypatch.setattr(site, "REPOSITORY", repository)
    assert site.edit_link("rlhf/dpo") == f"{repository}/{verb}/main/docs/rlhf/dpo.md"


def test_only_english_pages_have_a_social_card(building):
    _, site = building
    app = SimpleNamespace(config=SimpleNamespace())
    for page, has_card in [("index", True), ("zh", False), ("notebooks/zh/04_ppo", False)]:
        site.prepare_card(app, page, "page.html", {}, None)
        assert app.config.ogp_social_cards["enable"] is has_card
    assert (ROOT / "docs" / app.config.ogp_social_cards["image_mini"]).exists()


@pytest.mark.parametrize(
    ("paragraphs", "expected"),
    [
        (["中文版", "A word " * 20], ("A word " * 20).strip()),
        (["A word " * 40], ("A word " * 40)[:157].rpartition(" ")[0] + " …"),
        (["一段。" * 80], "一段。" * 52 + " …"),
        (["x" * 300], "x" * 158 + " …"),
        (["Too short."], ""),
    ],
)
def test_a_description_is_the_first_long_paragraph(building, paragraphs, expected):
    tree = nodes.container("", *(nodes.paragraph("", text) for text in paragraphs))
    assert building[1].description(tree) == expected


def test_the_sources_of_the_pages_are_not_published(building, tmp_path):
    _, site = building
    (tmp_path / "_sources" / "rlhf").mkdir(parents=True)
    (tmp_path / "index.html").touch()
    site.remove_sources(
        SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), None
    )
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


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

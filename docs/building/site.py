"""Small corrections of the theme's pages."""

from typing import Any

from sphinx.application import Sphinx


def correct(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Give the captions of the navigation the level that a heading must have."""
    heading = 'role="heading"'
    context["furo_navigation_tree"] = context.get("furo_navigation_tree", "").replace(
        heading, f'{heading} aria-level="2"'
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", correct, priority=900)  # after the theme
    return {"parallel_read_safe": True}

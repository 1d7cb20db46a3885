from collections.abc import Iterator

import pytest
from jinja2 import UndefinedError

from semires.pipeline.reporting.html import templates
from semires.pipeline.reporting.html.templates import data_uri, render

HOSTILE = "</script><b>&\"'{{ 7 * 7 }}"


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Templates by name, in place of the room's."""
    known = {"style.css": "a > b { }"}
    monkeypatch.setattr(templates, "_read", known.__getitem__)
    templates._environment.cache_clear()
    yield known
    templates._environment.cache_clear()


def test_render__a_users_text_is_no_markup(template: dict[str, str]) -> None:
    template["a.html"] = "<p title='{{ text }}'>{{ text }}</p><script>{{ {'text': text} | tojson }}</script>"
    page = render("a.html", text=HOSTILE)
    assert page.count("<b>") == page.count("49") == 0
    assert page.count("</script>") == 1
    assert page.count("&#39;") == 2


def test_render__a_name_that_is_no_utf8(template: dict[str, str]) -> None:
    template["a.html"] = "<p>{{ text }}</p>"
    assert render("a.html", text=b"\xff.jpg".decode("utf-8", "surrogateescape")) == "<p>\\udcff.jpg</p>"


def test_render__a_style_as_it_is(template: dict[str, str]) -> None:
    template["a.html"] = '<style>{{ inlined("style.css") }}</style>'
    assert render("a.html") == "<style>a > b { }</style>"


def test_render__what_nobody_gave(template: dict[str, str]) -> None:
    template["a.html"] = "{{ missing }}"
    with pytest.raises(UndefinedError, match="missing"):
        render("a.html")


def test_data_uri() -> None:
    assert data_uri("image/png", b"\xff\x00") == "data:image/png;base64,/wA="

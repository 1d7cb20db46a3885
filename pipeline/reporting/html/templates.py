"""HTML pages of one file each: templates, styles and scripts of this folder, everything a page shows inside of it.

A user's text reaches a page through Jinja's escaping alone, and data for a script through its `tojson`, which leaves no
`<` that could end the script.
"""

import base64
import functools
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """The page that `template`, a file of this folder, makes of `values`. jinja2.UndefinedError where it asks for one
    that is not among them.

    Beside what Jinja brings, a template has `inlined(name)`, a style or script of this folder as it is, and
    `data_uri(mime, content)`. A name's bytes that are no UTF-8 (surrogates in Python's text) come as their escapes.
    """
    page = _environment().get_template(template).render(values)
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"inlined": lambda name: Markup(_read(name)), "data_uri": data_uri}
    return environment


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def data_uri(mime: str, content: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"

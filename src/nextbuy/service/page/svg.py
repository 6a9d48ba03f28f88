"""SVG from plain values. Every attribute and every text is escaped here and nowhere else.

Pictures have no styles of their own: the style sheet colours classes, so that they follow light and
dark. Places are percentages wherever possible: then letters keep their size on narrow screens.
"""

import re
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup, escape

_DATE: Final = re.compile(r"\(?\d{4}-\d{2}-\d{2}\)?")
_NAMES: Final = {"class_": "class", "view_box": "viewBox", "preserve": "preserveAspectRatio"}


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element; attributes that are None are left out, `text_anchor` is `text-anchor`.

    Args:
        name: Of the element; never from outside.
        content: Text, which is escaped, or other elements.
        attributes: Values are escaped; names are never from outside.
    """
    told = "".join(
        f' {_NAMES.get(key, key.replace("_", "-"))}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(part) for part in content)
    return Markup(f"<{name}{told}>{inner}</{name}>")  # noqa: S704 - all parts are escaped above


def joined(parts: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("").join(parts)


def picture(*content: Markup, title: str, description: str, height: int, kind: str = "") -> Markup:
    """A picture as wide as its place, with what a screen reader says of it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *content,
        class_=f"picture {kind}".strip(),
        role="img",
        width="100%",
        height=height,
        aria_label=f"{title}. {description}",
    )


def bar(share: float, label: str, kind: str = "") -> Markup:
    """A share of the place's width, 0 to 1."""
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}%"
    return element(
        "svg",
        element("rect", class_="track", width="100%", height="100%", rx=4),
        element("rect", class_="fill", width=width, height="100%", rx=4),
        class_=f"bar {kind}".strip(),
        role="img",
        aria_label=label,
    )


def place(share: float) -> str:
    """A share of the width as an attribute."""
    return f"{100 * share:.2f}%"


def unbroken(text: str) -> Markup:
    """A text whose dates stay on one line; everything is escaped."""
    parts, end = [], 0
    for match in _DATE.finditer(text):
        parts += [escape(text[end : match.start()]), element("span", match[0], class_="date")]
        end = match.end()
    return joined([*parts, escape(text[end:])])

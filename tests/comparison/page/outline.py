"""Reads a page's HTML strictly: nesting, ids, headings, tables, links, and what the page would load."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

from bbi_lightning.comparison.page.every_run import every_run

_VOID = {"meta", "link", "img", "br", "path", "use", "rect", "line", "circle", "input"}


class Outline(HTMLParser):
    """`open` is empty for a page whose elements are all closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.headings, self.loads, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href", "data", "action") and v]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        """The attributes of every element of that name."""
        return [values for name, values in self.tags if name == tag]


def text_of(page):
    """The page's words, without those of scripts, styles and pictures."""
    text = re.sub(r"<(style|svg|head|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


def inside(page):
    """The table of every run as the page's script gets it."""
    return json.loads(re.search(r'id="run-data">(.*?)</script>', page, flags=re.DOTALL)[1])


def columns_of(*comparisons):
    return {column["name"]: column for column in json.loads(every_run(comparisons))["columns"]}

"""The table of every run as a reader uses it, in a tab of the browser."""

from __future__ import annotations

ROWS = """[...document.querySelectorAll(".every-run tbody tr")]
  .map((row) => [...row.cells].map((cell) => cell.textContent))"""
NAMES = """[...document.querySelectorAll(".every-run thead th:not([hidden])")].map((th) => th.textContent)"""


def table(tab):
    """The rows of the table of every run that are in the document, as dictionaries."""
    names = tab.run(NAMES)
    return [dict(zip(names, row, strict=True)) for row in tab.run(ROWS)]


def select(tab, label, option):
    """Choose in one of the filters."""
    tab.run(
        f"""(() => {{ const label = [...document.querySelectorAll(".filters label")]
        .find((l) => l.textContent.startsWith("{label}")), select = label.querySelector("select");
        select.value = [...select.options].find((o) => o.text === "{option}").value;
        select.dispatchEvent(new Event("change", {{bubbles: true}})); }})()"""
    )


def search(tab, text):
    """Type into the search box, and wait until the table has followed."""
    tab.run('document.getElementById("run-search").value = ""; document.getElementById("run-search").focus()')
    tab.write(text) if text else tab.run(
        'document.getElementById("run-search").dispatchEvent(new Event("input"))'
    )
    tab.run("new Promise((done) => setTimeout(done, 250))")


def said(tab):
    return tab.run('document.getElementById("run-count").textContent')


def head(tab, name):
    """Makes the button of a column's head reachable as `#now`."""
    tab.run(
        f"""(() => {{ document.getElementById("now")?.removeAttribute("id");
        [...document.querySelectorAll(".every-run thead button")]
        .find((b) => b.textContent === "{name}").id = "now";
        }})()"""
    )

"""A page, and a browser to open it in."""

import pytest

from bbi_lightning.comparison.page.page import write_page
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.page.browser import CHROMIUM, Browser
from tests.comparison.synthetic_sweep import realistic


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it to test how the page renders")
    with Browser(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    return compare_sweep(read_sweep(realistic(tmp_path_factory.mktemp("sweeps") / "digits")))


@pytest.fixture(scope="session")
def file(comparison, tmp_path_factory):
    return write_page(comparison, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def tab(browser):
    tab = browser.page()
    tab.media()
    yield tab
    tab.close()


@pytest.fixture
def opened(tab, file):
    tab.open(file)
    return tab

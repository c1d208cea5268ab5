"""The pages are true: their examples run, and the files and names that they point to are there."""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import cyconv

ROOT = Path(__file__).parents[1]
EXAMPLES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*EXAMPLES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PROGRAM = re.compile(r"^```python\n(?!>>>)(.*?)^```$", re.M | re.S)
FENCE = re.compile(r"^```.*$", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
NAME = re.compile(r"\[`([^`]+)`\]\(([^)#\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request):
    """Return the path of each page in turn."""
    return request.param


def anchors(text):
    """Return the names that headings have in links."""
    return {
        re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in HEADING.findall(text)
    }


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda path: path.name)
def test_examples_run_in_their_order_and_without_a_network_connection(page, monkeypatch, tmp_path):
    monkeypatch.setattr(cyconv.datasets, "load_mnist", cyconv.datasets.load_digits)
    monkeypatch.chdir(tmp_path)
    text, names, report = page.read_text(encoding="utf-8"), {}, []
    programs = PROGRAM.findall(text)
    for program in programs:
        if "sklearn" in program and not find_spec("sklearn"):
            continue
        exec(compile(program, page.name, "exec"), names)
    # A fence would be taken for the last line of what an example prints.
    session = doctest.DocTestParser().get_doctest(FENCE.sub("", text), {}, page.name, page.name, 0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.REPORT_ONLY_FIRST_FAILURE
    result = doctest.DocTestRunner(optionflags=flags).run(session, out=report.append)
    assert result.failed == 0, "".join(report)
    assert programs or result.attempted


def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), link


def test_names_are_in_the_files_that_they_link_to(page):
    for text, target in NAME.findall(page.read_text(encoding="utf-8")):
        name = re.findall(r"\w+", text)[-1]
        code = (page.parent / target).read_text(encoding="utf-8")
        definition = rf"\bdef {name}\(" if "::" in text else rf"\b{name}\b"
        assert text.endswith(Path(target).name) or re.search(definition, code), f"{text}: {target}"

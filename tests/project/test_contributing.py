"""The private names of others that the page for contributors lists are those that are used."""

import re

from support import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_private_names_stand_where_the_page_says_and_have_a_test():
    table = PAGE[PAGE.index("| name | used in | why | test |") :]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    assert len(rows) > 15
    for name, file, reason, test in rows:
        wanted = re.search(r"`(?:\w+[.(])*(\w+)", name)[1]
        assert wanted in (ROOT / file.strip("`")).read_text(), (wanted, file)
        assert reason and "::test_" in test


def test_no_other_private_name_of_others_is_used():
    listed = set(re.findall(r"\b_[a-z]\w+", PAGE))
    for file in (ROOT / "clce_hf").rglob("*.py"):
        text = file.read_text()
        used = set(re.findall(r"(?<!self)(?<!cls)(?<!type\(self\))\.(_[a-z]\w+)", text))
        used |= set(re.findall(r"super\(\)\.(_[a-z]\w+)", text))
        assert used <= listed, file

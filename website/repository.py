"""Hook of MkDocs: pages for the files of the repository outside docs/, and links to them.

Pages link to each other and to files as GitHub needs it, `../examples/recipes/paper.yaml`. On the
site, each file that a page links to has a page of its own that shows it.
"""

import json
import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages of the repository, by their names on the site."""

LINK = re.compile(
    r"(?:(?<=\]\()|(?<=src=\"))(?![a-z]+:|#)(?P<path>[^)#\s\"]+)(?P<anchor>#[^)\s]*)?"
)
"""In Markdown and, as a picture with a size needs it, in HTML."""

COLAB = "[![Open in Colab]({up}/badges/colab.svg)](https://colab.research.google.com/github/{at})"

LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the files that they link to."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "site.css", abs_src_path=str(ROOT / "website/site.css")))
    for page in files.documentation_pages():
        for link in LINK.finditer(page.content_string):
            path = _in_repository(page.src_uri, link["path"])
            name = _on_site(path)
            if files.get_file_from_path(name) is None and (ROOT / path).is_file():
                files.append(File.generated(config, name, content=_shown(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links lead to the pages of the site."""
    here = page.file.src_uri

    def on_site(link: re.Match[str]) -> str:
        name = _on_site(_in_repository(here, link["path"]))
        return posixpath.relpath(name, posixpath.dirname(here) or ".") + (link["anchor"] or "")

    return markdown if here.startswith(("source/", "reference/")) else LINK.sub(on_site, markdown)


def _in_repository(page: str, target: str) -> str:
    """Return the path, from the root of the repository, of what a page of the site links to."""
    is_outside = page in PAGES.values()
    return posixpath.normpath(posixpath.join("" if is_outside else "docs", target))


def _on_site(path: str) -> str:
    """Return the name on the site of a file of the repository."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"


def _shown(path: str) -> str:
    """Return a page that shows a file."""
    text, kind = (ROOT / path).read_text("utf-8"), Path(path).suffix
    if kind == ".ipynb":
        body = _open_in_colab(path) + _cells(text)
    else:
        body = _fenced(text, LANGUAGES.get(kind, "text"))
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{body}\n"


def _open_in_colab(notebook: str) -> str:
    """Return a badge where GitHub builds the site and so says which repository it is, else ""."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    if not repository:
        return ""
    up = posixpath.relpath(".", posixpath.dirname(_on_site(notebook)))
    return COLAB.format(up=up, at=f"{repository}/blob/main/{notebook}") + "\n\n"


def _cells(notebook: str) -> str:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]
    return "\n\n".join(_fenced(text, "python") if kind == "code" else text for kind, text in cells)


def _fenced(code: str, language: str) -> str:
    return f"``````{language}\n{code}\n``````"

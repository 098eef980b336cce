"""Hook of MkDocs: the reference, a page for each room with public names, from its `__all__`."""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parent.parent / "clce_hf"
ROOMS = ("", "loss", "data", "models", "evaluation", "comparison", "reports")
"""Those that users import from; `training`, `hub` and `cli` are what the trainer is made of."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages where the navigation says `reference/`."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and entry.get("Reference") == "reference/":
            entry["Reference"] = [{_title(room): _name(room)} for room in ROOMS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each room."""
    for room in ROOMS:
        files.append(File.generated(config, _name(room), content=_page(room)))
    return files


def _title(room: str) -> str:
    return f"clce_hf.{room}".rstrip(".")


def _name(room: str) -> str:
    return f"reference/{room or 'clce_hf'}.md"


def _page(room: str) -> str:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))
    names = _public_names(tree)
    parts = [f"::: {_title(room)}.{name}" for name in names]
    return "\n\n".join([f"# {_title(room)}", ast.get_docstring(tree) or "", *parts])


def _public_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError("The module has no __all__: public names are listed there.")

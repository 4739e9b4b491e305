"""Complete the API reference as the documentation is built: all names in a table, and the source.

Each name links to its line in the source, which is a part of the site.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from posixpath import relpath
from typing import Any

import madcrow_events

NAMES = "<!-- all names -->"
"""Where the table of all public names belongs, on a page."""

_SOURCE = Path(__file__).parents[2] / "src"
_HEADING = re.compile(
    r'(<h(?P<level>\d) id="(?P<name>madcrow_events\.[\w.]+)" class="doc doc-heading">.*?)(</h\2>)',
    re.DOTALL,
)


def public_names() -> dict[str, str]:
    """Return each public name with the front door or the module to import it from before it.

    Two modules may give one name to two things. The value is that front door or module.
    """
    modules = ["madcrow_events"]
    modules += [it.name for it in pkgutil.walk_packages(madcrow_events.__path__, "madcrow_events.")]
    found: dict[str, str] = {}
    seen: set[tuple[str, int]] = set()
    # A wing comes before its rooms, whose names it hands on.
    for module in modules:
        if "._" not in module and module != "madcrow_events.cli":  # which is typed in a shell
            imported = importlib.import_module(module)
            for name in getattr(imported, "__all__", ()):
                thing = name, id(getattr(imported, name))
                if not name.startswith("_") and thing not in seen:
                    seen.add(thing)
                    found[f"{module}.{name}"] = module
    return found


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker by the table; mkdocs calls this for each page."""
    return markdown.replace(NAMES, names()) if NAMES in markdown else markdown


def names() -> str:
    """Return a table of all public names, each linked to its description."""
    found = [
        (full.removeprefix(f"{module}."), full, module) for full, module in public_names().items()
    ]
    rows = "".join(
        f"| [`{name}`][{full}] | `{module}` |\n"
        for name, full, module in sorted(found, key=lambda it: (it[0].lower(), it[2]))
    )
    return f"| name | import it from |\n|---|---|\n{rows}"


def on_files(files: Any, *, config: Any) -> Any:
    """Add a page with the source of each module; mkdocs calls this once."""
    from mkdocs.structure.files import File
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    formatter = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True)
    for path in sorted((_SOURCE / "madcrow_events").rglob("*.py")):
        file = path.relative_to(_SOURCE)
        name = ".".join(file.with_suffix("").parts)
        code = highlight(path.read_text(encoding="utf-8"), PythonLexer(), formatter)
        page = f"---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n# {name}\n\n{code}"
        files.append(File.generated(config, _page_of(file), content=page))
    return files


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Link each name to its line in the source; mkdocs calls this for each page."""

    def with_link(heading: re.Match[str]) -> str:
        place = _place_of(heading["name"])
        if place is None:
            return heading[0]
        file, line = place
        target = relpath(_page_of(file).removesuffix(".md"), page.file.src_uri.removesuffix(".md"))
        return (
            f'{heading[1]} <a class="source" href="{target}/#L-{line}" '
            f'aria-label="Source of {heading["name"]}"></a>{heading[4]}'
        )

    return _HEADING.sub(with_link, html)


def _page_of(file: Path) -> str:
    """Return the page that shows the source of a file."""
    return f"source/{'/'.join(file.with_suffix('').parts)}.md"


@cache
def _package() -> Any:
    """Return the package as mkdocstrings reads it, without running it."""
    import griffe

    return griffe.load("madcrow_events", search_paths=[str(_SOURCE)])


def _place_of(name: str) -> tuple[Path, int] | None:
    """Return where a name is defined: its file, from the folder of the source, and the line."""
    found = _package()[name.removeprefix("madcrow_events.")]
    if found.is_alias:
        found = found.final_target
    return found.filepath.relative_to(_SOURCE.resolve()), found.lineno

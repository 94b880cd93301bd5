"""BENCHMARKS.md has a part for each script; each writes its own and leaves the others as they are."""

import re
from pathlib import Path


def write_part(path: Path, name: str, text: str) -> None:
    """Put a part in the place of the one that is there, or behind what is."""
    part = f"<!-- {name} -->\n{text.strip()}\n<!-- end of {name} -->\n"
    page = path.read_text() if path.exists() else ""
    place = re.compile(rf"<!-- {name} -->\n.*?<!-- end of {name} -->\n", re.DOTALL)
    if place.search(page):
        page = place.sub(lambda _: part, page)
    else:
        page = f"{page.rstrip()}\n\n{part}" if page.strip() else part
    path.write_text(page)

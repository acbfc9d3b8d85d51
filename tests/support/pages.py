"""The documentation as its tests see it: pages, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"(at the end of )?`([\w./-]+)`:$", re.I)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. Readers write it to ``file``, or add it there ``at_the_end``: the paragraph
    before the block ends in "`name`:" or "at the end of `name`:".
    """

    where: str
    language: str
    code: str
    file: str | None
    at_the_end: bool


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            where=f"{page.relative_to(ROOT)}, line {text.count(chr(10), 0, found.start()) + 1}",
            language=found[1],
            code=found[2],
            file=named[2] if named else None,
            at_the_end=bool(named and named[1]),
        )
        for found in _FENCE.finditer(text)
        for named in [_FILE.search(" ".join(text[: found.start()].split()))]
    ]


def pages() -> Iterator[Path]:
    yield README
    for page in sorted(DOCS.rglob("*.md")):
        if "_build" not in page.parts:
            yield page


def broken_links(page: Path) -> list[str]:
    """The links of ``page`` that lead to no file, or to no heading in it."""

    def leads_somewhere(link: str) -> bool:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        return target.exists() and (not anchor or anchor in anchors(target))

    return [
        link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if not leads_somewhere(link)
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}

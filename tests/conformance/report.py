"""The Testsuite's findings: from ``index.json`` to a table and a verdict. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OK, INFORMATIONAL, NON_STRICT = "OK", "INFORMATIONAL", "NON-STRICT"
UNIMPLEMENTED, FAILED = "UNIMPLEMENTED", "FAILED"
# From the best to the worst.
OUTCOMES = (OK, INFORMATIONAL, NON_STRICT, UNIMPLEMENTED, FAILED)


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the Testsuite: its number, its topic and its number of cases."""

    number: int
    title: str
    count: int


PLAIN_SECTIONS = (
    Section(1, "Framing", 16),
    Section(2, "Pings and pongs", 11),
    Section(3, "Reserved bits", 7),
    Section(4, "Opcodes", 10),
    Section(5, "Fragments", 20),
    Section(6, "UTF-8", 145),
    Section(7, "Close handshake", 37),
    Section(9, "Limits", 54),
    Section(10, "Automatic fragments", 1),
)
# The subsections of both, with 18 cases each.
DEFLATE_SUBSECTIONS = {12: 5, 13: 7}
DEFLATE_TITLES = {12: "Compression: contents", 13: "Compression: parameters"}


@dataclass(frozen=True, slots=True)
class Selection:
    """The cases that run: all without compression, and the first of each subsection with it."""

    deflate_cases: int

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections, with as many cases as a complete run has."""
        if not self.deflate_cases:
            return PLAIN_SECTIONS
        return (
            *PLAIN_SECTIONS,
            *(
                Section(number, DEFLATE_TITLES[number], subsections * self.deflate_cases)
                for number, subsections in DEFLATE_SUBSECTIONS.items()
            ),
        )

    @property
    def patterns(self) -> list[str]:
        """The Testsuite's names for them. Its ``12.1.1*`` would mean ``12.1.10`` as well."""
        return [
            *(f"{section.number}.*" for section in PLAIN_SECTIONS),
            *(
                f"{number}.{subsection}.{case}"
                for number, subsections in DEFLATE_SUBSECTIONS.items()
                for subsection in range(1, subsections + 1)
                for case in range(1, self.deflate_cases + 1)
            ),
        ]


SELECTIONS = {"all": Selection(18), "ci": Selection(9), "plain": Selection(0)}


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of each case by its number, and how many there should be."""

    outcomes: Mapping[str, str]
    selection: Selection

    def table(self) -> str:
        """The outcomes by section, in Markdown."""
        rows = [
            [
                f"{section.number}. {section.title}",
                section.count,
                *(self._counts(section)[outcome] for outcome in OUTCOMES),
            ]
            for section in self.selection.sections
        ]
        sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
        lines = [
            ["section", "cases", *OUTCOMES],
            ["---", *["---:"] * (1 + len(OUTCOMES))],
            *rows,
            ["**all**", *sums],
        ]
        return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)

    def remarkable(self) -> list[str]:
        """A line for each outcome other than OK, with its cases."""
        return [
            f"{outcome}: {' '.join(cases)}"
            for outcome in OUTCOMES[1:]
            if (cases := [case for case in self._sorted() if self.outcomes[case] == outcome])
        ]

    def problems(self) -> list[str]:
        """Why the run did not succeed; empty if it did."""
        counts = Counter(self.outcomes.values())
        found = [f"{counts[bad]} {bad}" for bad in (FAILED, UNIMPLEMENTED) if counts[bad]]
        for section in self.selection.sections:
            ran = self._counts(section).total()
            if ran != section.count:
                found.append(f"section {section.number}: {ran} of {section.count} cases ran")
        return found

    def _sorted(self) -> list[str]:
        return sorted(self.outcomes, key=lambda case: [int(part) for part in case.split(".")])

    def _counts(self, section: Section) -> Counter[str]:
        return Counter(
            outcome
            for case, outcome in self.outcomes.items()
            if case.partition(".")[0] == str(section.number)
        )


def read_report(index: Mapping[str, Mapping[str, Any]], selection: Selection) -> Report:
    """Read the contents of ``index.json``, which has one agent."""
    (cases,) = index.values()
    return Report({case: outcome_of(result) for case, result in cases.items()}, selection)


def outcome_of(result: Mapping[str, Any]) -> str:
    """The worse of two outcomes: that of the case, and that of its connection's end.

    The Testsuite is milder about some ends (unclean, wrong code). Here they are failures.
    """
    both = (result["behavior"], result["behaviorClose"])
    return max((word if word in OUTCOMES else FAILED for word in both), key=OUTCOMES.index)

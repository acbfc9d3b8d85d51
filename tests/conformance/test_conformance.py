"""The verdict on a run of the Autobahn Testsuite. ``make conformance`` does the run itself."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.conformance.__main__ import NoReport, run
from tests.conformance.environment import TESTSUITE, NoPython2, find_python2
from tests.conformance.report import SELECTIONS, Report, outcome_of, read_report
from tests.conformance.server import EchoSubscriber, TypedProtocol
from tests.support import ROOT
from tests.support.programs import python, write_file
from ws4redis_tx.testing import connect, make_memory_factory

DOCUMENT = ROOT / "docs" / "conformance.md"


def complete(selection: str, **outcomes: str) -> Report:
    """A report of a clean run, except for cases given as ``case_1_1_1=outcome``."""
    chosen = SELECTIONS[selection]
    found = {
        f"{section.number}.{case}": "OK"
        for section in chosen.sections
        for case in range(1, section.count + 1)
    }
    found.update({name[5:].replace("_", "."): outcome for name, outcome in outcomes.items()})
    return Report(found, chosen)


class ReportTests(SynchronousTestCase):
    def test_the_selections_have_the_cases_that_are_promised(self) -> None:
        self.assertEqual(
            {
                name: sum(section.count for section in selection.sections)
                for name, selection in SELECTIONS.items()
            },
            {"all": 517, "ci": 409, "plain": 301},
        )

    def test_the_cases_with_compression_are_named_one_by_one(self) -> None:
        patterns = SELECTIONS["ci"].patterns
        self.assertIn("13.7.9", patterns)
        self.assertNotIn("13.7.10", patterns)
        self.assertEqual(len(SELECTIONS["all"].patterns), 9 + 216)

    def test_informational_and_non_strict_cases_are_no_problem_but_told(self) -> None:
        report = complete("ci", case_7_10="INFORMATIONAL", case_7_2="INFORMATIONAL")
        self.assertEqual(report.problems(), [])
        self.assertEqual(report.remarkable(), ["INFORMATIONAL: 7.2 7.10"])
        self.assertEqual(complete("ci", case_6_1="NON-STRICT").problems(), [])

    def test_a_failed_case_and_one_that_is_not_implemented_are_problems(self) -> None:
        report = complete("ci", case_1_1="FAILED", case_12_1="UNIMPLEMENTED")
        self.assertEqual(report.problems(), ["1 FAILED", "1 UNIMPLEMENTED"])

    def test_a_case_that_did_not_run_is_a_problem(self) -> None:
        report = complete("all")
        outcomes = {case: outcome for case, outcome in report.outcomes.items() if case != "5.20"}
        self.assertEqual(
            Report(outcomes, report.selection).problems(), ["section 5: 19 of 20 cases ran"]
        )

    def test_the_worse_of_how_a_case_went_and_how_its_connection_ended_counts(self) -> None:
        for behavior, close, outcome in (
            ("OK", "OK", "OK"),
            ("OK", "INFORMATIONAL", "INFORMATIONAL"),
            ("NON-STRICT", "OK", "NON-STRICT"),
            ("UNIMPLEMENTED", "OK", "UNIMPLEMENTED"),
            ("OK", "FAILED", "FAILED"),
            ("OK", "UNCLEAN", "FAILED"),
            ("OK", "WRONG CODE", "FAILED"),
            ("a new word", "OK", "FAILED"),
        ):
            with self.subTest(behavior=behavior, close=close):
                result = {"behavior": behavior, "behaviorClose": close}
                self.assertEqual(outcome_of(result), outcome)

    def test_it_reads_what_the_testsuite_writes(self) -> None:
        case = {"behavior": "OK", "behaviorClose": "OK", "duration": 1, "remoteCloseCode": 1000}
        report = read_report({"ws4redis_tx": {"1.1.1": case}}, SELECTIONS["plain"])
        self.assertEqual(report.outcomes, {"1.1.1": "OK"})
        self.assertIn("| 1. Framing | 16 | 1 | 0 | 0 | 0 | 0 |", report.table())

    def test_the_document_shows_a_complete_run_without_problems(self) -> None:
        informational = {f"case_7_{case}": "INFORMATIONAL" for case in (1, 2, 3)}
        report = complete("all", **informational)
        self.assertEqual(report.problems(), [])
        self.assertIn(f"\n\n{report.table()}\n\n", DOCUMENT.read_text())
        self.assertIn(TESTSUITE.replace("==", " "), DOCUMENT.read_text())


class EchoTests(SynchronousTestCase):
    def test_each_message_comes_back_as_it_was_of_its_type_and_in_order(self) -> None:
        factory = make_memory_factory(subscriber=EchoSubscriber)
        factory.protocol = TypedProtocol
        client = connect(factory, "ws://localhost/ws/conformance")
        messages: list[str | bytes] = ["text", b"ascii", b"", "", b"\xff", "ü" * 70000, b"x" * 200]
        for message in messages:
            client.send(message)
        self.assertEqual(client.messages, messages)


class EnvironmentTests(SynchronousTestCase):
    def test_where_there_is_no_python_2_it_says_so_and_what_to_do(self) -> None:
        error = self.assertRaises(NoPython2, find_python2, "/nonexistent/python2.7")
        self.assertIn("/nonexistent/python2.7", str(error))
        self.patch(shutil, "which", lambda name: None)
        self.patch(Path, "glob", lambda path, pattern: iter(()))
        self.assertIn("--python2 PATH", str(self.assertRaises(NoPython2, find_python2)))

    def test_another_python_is_not_taken_for_it(self) -> None:
        self.assertRaises(NoPython2, find_python2, shutil.which("python3"))

    def test_a_run_without_it_is_told_apart_from_one_that_failed(self) -> None:
        done = python("-m", "tests.conformance", "--python2", "/nonexistent/python2.7")
        self.assertEqual(done.returncode, 77)
        self.assertIn("NOT tested", done.stdout)


class RunTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_a_testsuite_that_ends_without_a_report_is_no_success(self) -> Any:
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        wstest = Path(write_file(self, "#!/bin/sh\necho it broke\n"))
        wstest.chmod(0o700)
        error = yield self.assertFailure(
            run(reactor, wstest, folder / "report", SELECTIONS["plain"].patterns), NoReport
        )
        self.assertIn("it broke", str(error))

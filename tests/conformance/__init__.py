"""The Autobahn Testsuite against this server; see docs/conformance.md."""

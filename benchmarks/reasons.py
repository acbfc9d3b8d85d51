"""The reasons why goals were missed, by the goals' texts. Each is one that a program measures."""

REASONS = {
    "one to one, idle work included: ratio to the minimal relay": "The relay knows no visitors. "
    "Our server also pings its two thousand visitors every 25 s, and rechecks each one's session, "
    "user and groups every 300 s. The figure includes this work, divided among the messages. "
    "`python -m benchmarks.relay` also prints the ratio without it.",
}

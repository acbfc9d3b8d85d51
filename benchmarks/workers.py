"""The fan-out with ``--workers 2``, compared with one process: CPU per delivery."""

from __future__ import annotations

from benchmarks.driving import audiences
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import Site, Twistd

RATE = 20.0


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(5, 1)
    report = Report("workers", scale, clients=number, messages_a_second=RATE, bytes=128)
    with Site(number) as site, audiences() as audience:
        one = audience(lambda: Twistd(site=site), number)
        two = audience(lambda: Twistd("--workers=2", site=site), number)
        found = report.interleave(
            {
                "one process": lambda: one.fan_out(seconds, RATE),
                "two workers": lambda: two.fan_out(seconds, RATE),
            }
        )
    alone, together = (Figure(name, "µs/delivery", found[name]["cpu"]) for name in found)
    report.add(alone, together)
    report.goal("two workers: ratio to one process", together.over(alone), 1.15)
    return report


if __name__ == "__main__":
    main(run, __doc__)

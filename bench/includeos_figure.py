"""The paper's figures 2a and 2b: time and host CPU ticks of a request for N tasks, by arm."""

from __future__ import annotations

from bench.report import Report, median

_MARKS = ("o", "s", "^", "v", "D", "x")


def draw(report: Report, path: str) -> None:
    """Write PATH.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5))
    for mark, (name, by) in zip(_MARKS, report.extra["arms"].items(), strict=False):
        counts = [int(each) for each in by]
        dashes = "--" if name == "processes" else "-"
        seconds = [median([one[0] for one in each]) for each in by.values()]
        ticks = [sum(one[1] + one[2] for one in each) / len(each) for each in by.values()]
        left.plot(counts, seconds, dashes, marker=mark, label=name if name != "processes" else "processes of this host")
        right.plot(counts, ticks, dashes, marker=mark)
    for axes, title, unit in (
        (left, "Time of a request", "seconds, median"),
        (right, "Host CPU time of a request", "ticks of 10 ms, mean"),
    ):
        axes.set_title(title)
        axes.set_xlabel("tasks, and processors of the machine")
        axes.set_ylabel(unit)
        axes.set_xticks(report.extra["counts"])
        axes.set_ylim(bottom=0)
        axes.axvline(report.extra["counts"][-2], color="grey", linewidth=0.8)
    left.legend(frameon=False)
    figure.suptitle(
        f"Primes below {report.extra['limit']:,}; the grey line is this host's processors; machines are emulated"
    )
    figure.tight_layout()
    figure.savefig(f"{path}.png", dpi=110)
    pyplot.close(figure)

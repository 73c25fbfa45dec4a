"""The start-up figure, in the manner of the Reg paper's figures 8 and 9: every instance's start time, side by side.

Left, every start of each arm in the order in which they were taken (figure 8); right, the storm (figure 9).
The axis is logarithmic, because the arms lie two orders of magnitude apart. matplotlib is imported here alone.
"""

from __future__ import annotations

from bench.report import Report, median

COLOURS = ("#0b6e4f", "#6bbf59", "#8d6a9f", "#c05746", "#e09f3e", "#335c81", "#7a7a7a", "#a8763e", "#4a4e69", "#222222")

LABELS = {"start": "swiftlet launcher", "": "swiftlet launcher", "cli": "swiftlet run", "docker": "docker run"}
LABELS |= {"podman": "podman run", "podman_host": "podman run --network host", "crun_plain": "crun, no filter"}


def draw(report: Report, path: str) -> None:
    """Write a PNG: every metric NAME_p50_ms on the left, every NAME_storm_ms on the right, by its samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 6), layout="constrained")
    starts, storms = _series(report, "_p50_ms"), _series(report, "storm_ms")
    colours = dict(zip(starts | storms, COLOURS, strict=False))
    _plot(left, starts, colours, "Start to exit, arms interleaved")
    _plot(right, storms, colours, "Storm: one after the other, many kept alive")
    left.set_xlabel("instance")
    right.set_xlabel("containers started so far")
    machine = report.machine
    figure.suptitle(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}", fontsize=9)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _series(report: Report, ending: str) -> dict[str, list[float]]:
    found = {}
    for name, metric in report.metrics.items():
        if name.endswith(ending) and len(metric.samples) > 1:
            label = name.removesuffix(ending).rstrip("_")
            found[LABELS.get(label, label)] = metric.samples
    return found


def _plot(axes: object, series: dict[str, list[float]], colours: dict[str, str], title: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    axes.set_title(title)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.grid(True, which="major", alpha=0.3)
    for name, samples in series.items():
        longest = max(len(each) for each in series.values())
        places = [index * longest / len(samples) + 1 for index in range(len(samples))]
        axes.plot(
            places, samples, ".", markersize=3, color=colours[name], label=f"{name}: median {median(samples):.1f} ms"
        )
    axes.yaxis.set_major_formatter("{x:g}")
    if series:
        axes.legend(fontsize=8, markerscale=3, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12))

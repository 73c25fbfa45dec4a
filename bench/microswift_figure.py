"""The MicroswiftOS paper's figures 4, 5 and 6 drawn again, and where the time of a boot goes.

Figure 4: time until a service answers, for each configuration, with a point for every sample. Figures 5 and 6: latency
and throughput between two processes. The fourth panel stacks the moments of the traced boots.
matplotlib is imported here and in `figure` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import Report, median

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STOCK, OURS = "#c05746", "#0b6e4f"

BOOTS = (
    ("stock_ready_ms", "Debian 12", STOCK),
    ("stockkernel_ours_ms", "Debian's kernel,\nour image", "#e09f3e"),
    ("q35_ready_ms", "our kernel and image,\nsame machine type", "#8d6a9f"),
    ("ours_qemu_ready_ms", "our kernel and image,\nour machine type", "#6bbf59"),
    ("ours_ready_ms", "swiftlet run --as vm,\nas typed", OURS),
    ("clone_ms", "a clone instead,\nfrom its launch", "#7796b0"),
    ("clone_alone_ms", "a clone for which\nno machine waits", "#a8b8c4"),
    ("clone_typed_ms", "swiftlet run --from,\nas typed", "#335c81"),
)
"""Metric, label, colour."""

WAYS = {"pipe": "pipe", "unix_socket": "socket", "shared_memory": "shared memory"}
SYSTEMS = {"stock": ("Debian 12", STOCK), "ours": ("swiftlet", OURS)}

STAGES = (
    ("kernel", "QEMU, firmware, loading", "#335c81", "white"),
    ("process", "kernel", "#e09f3e", "black"),
    ("systemd", "initramfs", "#8d6a9f", "white"),
    ("ready", "user space until the service answers", "#6bbf59", "black"),
)
"""Moment at which it ends, label, colour, colour of what is written on it. Only the stock system has an initramfs."""

TIMELINES = {
    "stock": "Debian 12",
    "stockkernel": "Debian's kernel,\nour image",
    "q35": "ours, q35",
    "ours": "ours, microvm",
}


def draw(report: Report, path: str) -> None:
    """Write PATH.png and PATH.svg."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(13, 9), layout="constrained")
    _boots(axes[0][0], report)
    _timeline(axes[0][1], report)
    _messages(axes[1][0], report, "latency_us", "Latency of a message (figure 5)", "microseconds")
    _messages(axes[1][1], report, "throughput_mib_s", "Throughput (figure 6)", "MiB/s")
    told = report.machine
    words = [f"{told['processor']}, {told['cores']} cores, Linux {told['kernel']}"]
    words.append("KVM" if report.extra.get("accelerator") == "kvm" else "software emulation")
    if report.extra.get("quick"):
        words.append("quick run")
    figure.suptitle(", ".join(words), fontsize=10)
    for ending in ("png", "svg"):
        figure.savefig(f"{path}.{ending}", dpi=130)
    pyplot.close(figure)


def _boots(axes: Axes, report: Report) -> None:
    """Bars that lie, so that their labels can be read, with every sample as a point."""
    rows = [row for row in BOOTS if row[0] in report.metrics]
    axes.set_title("Until the service answers (figure 4)")
    for place, (name, _, colour) in enumerate(rows):
        metric = report.metrics[name]
        axes.barh(place, metric.value, color=colour, height=0.6)
        axes.plot(metric.samples, [place] * len(metric.samples), "|", color="#222222", markersize=9)
        axes.annotate(
            _milliseconds(metric.value),
            (max([metric.value, *metric.samples]), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12)
    axes.set_xlabel("milliseconds")
    axes.grid(True, axis="x", alpha=0.3)


def _milliseconds(value: float) -> str:
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"


def _timeline(axes: Axes, report: Report) -> None:
    """Each boot as parts of its whole, for they lie more than an order of magnitude apart; the whole is written."""
    rows = [name for name in TIMELINES if f"{name}_traced_ready_ms" in report.metrics]
    axes.set_title("Where the time of a boot goes (traced boots)")
    for place, name in enumerate(rows):
        _stack(axes, place, name, report)
    axes.set_yticks(range(len(rows)), [TIMELINES[name] for name in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 116)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("percent of the time until the service answers")
    axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)


def _stack(axes: Axes, place: int, name: str, report: Report) -> None:
    """One boot's row."""
    whole = report.metrics[f"{name}_traced_ready_ms"].value
    before = 0.0
    for stage, label, colour, ink in STAGES:
        metric = report.metrics.get(f"{name}_traced_{stage}_ms")
        if metric is None:
            continue
        left, share = before / whole * 100, (metric.value - before) / whole * 100
        axes.barh(place, share, left=left, color=colour, height=0.6, label=label if place == 0 else None)
        if share > 9:
            text = _milliseconds(metric.value - before)
            axes.text(left + share / 2, place, text, ha="center", va="center", fontsize=8, color=ink)
        before = metric.value
    axes.text(101, place, _milliseconds(whole), va="center", fontsize=9)


def _messages(axes: Axes, report: Report, value: str, title: str, unit: str) -> None:
    axes.set_title(title)
    width = 0.8 / len(SYSTEMS)
    for number, (system, (label, colour)) in enumerate(SYSTEMS.items()):
        names = [f"{system}_{way}_{value}" for way in WAYS]
        if not all(name in report.metrics for name in names):
            continue
        heights = [median(report.metrics[name].samples) for name in names]
        places = [place + (number - (len(SYSTEMS) - 1) / 2) * width for place in range(len(WAYS))]
        bars = axes.bar(places, heights, width * 0.92, color=colour, label=label)
        texts = [f"{height:.3g}" if height < 100 else f"{height:.0f}" for height in heights]
        axes.bar_label(bars, texts, fontsize=9, padding=2)
    axes.set_xticks(range(len(WAYS)), list(WAYS.values()))
    axes.set_ylabel(unit)
    axes.margins(y=0.15)
    axes.grid(True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)

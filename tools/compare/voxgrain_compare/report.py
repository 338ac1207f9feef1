"""Tables, JSON and a plot of one comparison."""

from __future__ import annotations

import json
from pathlib import Path

HEAD = """\
# voxgrain, llama.cpp and onnxruntime on the same weights

Made by `tools/compare/run` (tools/compare/README.md says how it measures) on {date}.
{cpu}, {cores} cores, {extensions}. {versions}.
Medians of {count} passes behind {past} positions; engines took turns all the time.
"""


def _ms(us: float) -> str:
    return f"{us / 1e3:.2f}"


def _mb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"


def _busy(shares: dict) -> str:
    return (
        f"Meanwhile other programs took {100 * shares['others']:.0f} % of the machine,"
        f" its host {100 * shares['host']:.0f} %."
    )


def passes_table(run: dict) -> list[str]:
    band = run["bandwidth"]
    sizes = list(run["engines"][0]["quartiles_us"])
    best = max(band.values())
    lines = [
        f"### {run['weights']}, {run['threads']} thread{'s' * (run['threads'] > 1)}",
        "",
        f"Memory is read at {band['file_gbs']:.1f} GB/s (mapped file), "
        f"{band['anonymous_gbs']:.1f} GB/s (anonymous). {_busy(run['busy'])}",
        "",
        "| engine | "
        + " | ".join(f"m={m}, ms" for m in sizes)
        + " | "
        + " | ".join(f"t({m})/t(1)" for m in sizes[1:])
        + " | GB/s at m=1 (of best read) | load to first pass, ms | resident after load, MB"
        " | after all passes (private) | peak |",
        "|---" * (1 + len(sizes) * 2 - 1 + 5) + "|",
    ]
    for e in run["engines"]:
        t = {m: q[1] for m, q in e["quartiles_us"].items()}
        one = t[sizes[0]]
        rate = e["read_bytes"] / one / 1e3
        hello, memory = e["about"], e["memory"]
        own = hello["before"]["rss"] or 0
        lines.append(
            f"| {e['engine']} | "
            + " | ".join(_ms(t[m]) for m in sizes)
            + " | "
            + " | ".join(f"{t[m] / one:.2f}" for m in sizes[1:])
            + f" | {rate:.1f} ({100 * rate / best:.0f} %) | {hello['first_pass_us'] / 1e3:.0f}"
            f" | {_mb(hello['loaded']['rss'] - own)}"
            f" | {_mb(memory['rss'] - own)} ({_mb(memory['anon'] - hello['before']['anon'])})"
            f" | {_mb(memory['peak'] - own)} |"
        )
    return [*lines, ""]


def agreement_table(found: dict) -> list[str]:
    lines = [
        "## Do they compute the same?",
        "",
        "Relative L2 distance of logits to the float reference of the same dequantised weights, in passes of 1, 2 and"
        " 5 rows on a cache that was rolled back; and of 5 rows in one pass to the same rows one at a time.",
        "",
        "| weights | engine | distance | prompt | same best token | 5 rows against single |",
        "|---|---|---|---|---|---|",
    ]
    for weights, engines in found.items():
        for name, r in engines.items():
            lines.append(
                f"| {weights} | {name} | {100 * r['relative_l2']:.2f} % "
                f"| {100 * r['prompt_relative_l2']:.2f} % | {100 * r['same_best_token']:.0f} % "
                f"| {r['rows_against_single']:.1e} |"
            )
    return [*lines, ""]


def speech_table(runs: list[dict]) -> list[str]:
    lines = [
        "## Whole sentences, default weights",
        "",
        "Tokens a second with prompt, drafting and sampling, without the codec, which the others have not."
        f" {runs[0]['utterances']} sentences. "
        + " ".join(f"{r['threads']} thread{'s' * (r['threads'] > 1)}: {_busy(r['busy'])}" for r in runs),
        "",
        "| arm | threads | tokens/s | against llama.cpp | accepted | with the codec |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        plain = run["arms"]["llama.cpp"]["tokens_per_second"]
        for name, r in run["arms"].items():
            accepted = f"{100 * r['acceptance']:.0f} %" if r.get("acceptance") else ""
            codec = r.get("tokens_per_second_with_codec")
            lines.append(
                f"| {name} | {run['threads']} | {r['tokens_per_second']:.0f} "
                f"| {r['tokens_per_second'] / plain:.2f} | {accepted} "
                f"| {f'{codec:.0f}' if codec else ''} |"
            )
    return [*lines, ""]


def plot(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "voxgrain"
    from matplotlib import pyplot as plt

    runs = result["passes"]
    columns = 2 if len(runs) > 1 else 1
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.5 * columns, 3.2 * rows), squeeze=False)
    colours = {"voxgrain": "#0b6e4f", "voxgrain, factorised head": "#58b368"}
    colours |= {"llama.cpp": "#c8553d", "onnxruntime": "#3d5a80"}
    for axis, run in zip(axes.flat, runs, strict=False):
        for e in run["engines"]:
            sizes = [int(m) for m in e["quartiles_us"]]
            low, mid, high = zip(*e["quartiles_us"].values(), strict=True)
            colour = colours[e["engine"]]
            axis.plot(sizes, [t / 1e3 for t in mid], "o-", color=colour, label=e["engine"])
            axis.fill_between(sizes, [t / 1e3 for t in low], [t / 1e3 for t in high], color=colour, alpha=0.2)
        bound = run["engines"][0]["read_bytes"] / max(run["bandwidth"].values()) / 1e6
        axis.axhline(bound, color="grey", linestyle=":", label="weights read once")
        axis.set_title(f"{run['weights']}, {run['threads']} thread(s)", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("rows of a pass")
        axis.set_ylabel("ms")
    for axis in list(axes.flat)[len(runs) :]:
        axis.axis("off")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def write(result: dict, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(result, indent=1) + "\n")
    machine = result["machine"]
    first = result["passes"][0]["engines"] if result["passes"] else []
    versions = [
        f"{e['engine']} {e['about']['version']}" if e["engine"] == "voxgrain" else e["about"]["version"]
        for e in first
        if e["engine"] != "voxgrain, factorised head"
    ]
    settings = result["settings"]
    text = HEAD.format(
        date=result["date"],
        cpu=machine["cpu"],
        cores=machine["cores"],
        extensions=" ".join(machine["extensions"]),
        versions=", ".join(versions),
        count=settings["repeats"] * settings["burst"],
        past=settings["past"],
    ).splitlines()
    text.append("")
    if result["passes"]:
        text += ["![Milliseconds a pass](compare.svg)", "", "## A pass of m rows", ""]
        for run in result["passes"]:
            text += passes_table(run)
        plot(result, out / "compare.svg")
    if result["speech"]:
        text += speech_table(result["speech"])
    text += agreement_table(result["agreement"])
    (out / "README.md").write_text("\n".join(text).rstrip() + "\n")

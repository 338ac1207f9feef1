#!/usr/bin/env python3
"""Draws docs/overview.svg, the README's picture, from docs/experiments/results.json: what each arm
gains in speed and costs in character errors, both against plain decoding, with 95 % intervals.

    docs/overview.py [--groups head-top-32]
"""

import argparse
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 48
# Readable on light and on dark pages.
INK, DEFAULT, OTHER = "#7a7f87", "#d9480f", "#1c7ed6"


def lanes(results: dict, groups: str) -> list[tuple[str, list[float], list[float]]]:
    """Name, speed-up and added character errors in points, each (value, low, high)."""
    wanted = []
    for lane in results["arms"]["lanes"]:
        if lane["index"] in (None, groups):
            errors = [100 * v for v in lane.get("cer_minus", [0.0, 0.0, 0.0])]
            wanted.append((lane["arm"], lane["speed_up"], errors))
    return wanted


def draw(results: dict, groups: str) -> str:
    points = lanes(results, groups)
    arms = {name for name, _, _ in points}
    if not {"ar", "transport"} <= arms:
        raise SystemExit(f"results.json has no arms with groups {groups!r}, only {sorted(arms)}")
    x_high = max(s[2] for _, s, _ in points) + 0.08
    y_low = min(e[1] for _, _, e in points) - 0.1
    y_high = max(e[2] for _, _, e in points) + 0.1

    def x(v: float) -> float:
        return LEFT + (v - 0.95) / (x_high - 0.95) * (WIDTH - LEFT - RIGHT)

    def y(v: float) -> float:
        return HEIGHT - BOTTOM - (v - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        "<title>Speed-up over plain decoding against added character errors, for each arm</title>",
    ]

    def line(
        x1: float, y1: float, x2: float, y2: float, colour: str, width: float, opacity: float = 1
    ) -> None:
        out.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>'
        )

    def text(at_x: float, at_y: float, words: str, more: str = "") -> None:
        out.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" {more}>{words}</text>')

    for tick in range(10, int(x_high * 10) + 1):
        line(x(tick / 10), TOP, x(tick / 10), HEIGHT - BOTTOM, INK, 1, 0.25)
        text(x(tick / 10), HEIGHT - BOTTOM + 16, f"{tick / 10:.1f}", 'text-anchor="middle"')
    for tick in range(-20, 21):
        if y_low < tick * 0.2 < y_high:
            line(LEFT, y(tick * 0.2), WIDTH - RIGHT, y(tick * 0.2), INK, 1, 0.8 if tick == 0 else 0.25)
            text(LEFT - 8, y(tick * 0.2) + 4, f"{tick * 0.2:.1f}", 'text-anchor="end"')
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "speed-up over plain decoding", 'text-anchor="middle"')
    text(12, 18, "character errors more than plain decoding, in points")

    for name, speed, errors in points:
        colour = DEFAULT if name == "transport" else OTHER
        line(x(speed[1]), y(errors[0]), x(speed[2]), y(errors[0]), colour, 1.5)
        line(x(speed[0]), y(errors[1]), x(speed[0]), y(errors[2]), colour, 1.5)
        out.append(f'<circle cx="{x(speed[0]):.1f}" cy="{y(errors[0]):.1f}" r="4.5" fill="{colour}"/>')
        weight = ' font-weight="bold"' if name == "transport" else ""
        text(x(speed[0]) + 8, y(errors[0]) - 7, name, f'fill="{colour}"{weight}')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--groups", default="head-top-32", help="the index of pcg and transport")
    args = parser.parse_args()
    results = json.loads((HERE / "experiments" / "results.json").read_text())
    (HERE / "overview.svg").write_text(draw(results, args.groups))


if __name__ == "__main__":
    main()

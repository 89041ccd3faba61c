#!/usr/bin/env python3
"""Writes what peers.sh has measured into the documents: peers_chart.py ROOT KILOBYTES CORES DATE

Standard input has a line for each server: its name, index files per second, crate files per second, seconds of `cargo
fetch`, and kB of anonymous memory. ROOT/docs/performance.md and ROOT/README.md have two comments each, `peers: begin` and
`peers: end`, between which the text is replaced. ROOT/docs/performance.svg is made anew.
"""
import sys

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
NAMES = {"mirror": "the mirror"}


def main():
    root, kilobytes, cores, date = sys.argv[1:]
    rows = []
    for line in sys.stdin:
        name, *figures = line.split()
        rows.append((NAMES.get(name, name), [float(figure) for figure in figures]))
    works = [
        ("index files /s", lambda value: thousands(value)),
        (f"crate files of {kilobytes} kB /s", lambda value: thousands(value)),
        ("`cargo fetch`, s", lambda value: f"{value:.1f}"),
        ("memory, MB", lambda value: f"{value / 1000:.0f}"),
    ]
    table = "| server | " + " | ".join(title for title, _ in works) + " |\n" + "| --- " * (len(works) + 1) + "|\n"
    for name, figures in rows:
        cells = [text(figure) for (_, text), figure in zip(works, figures)]
        table += f"| {name} | " + " | ".join(cells) + " |\n"
    print(table, end="")
    place = f"{date}, {cores} processors."
    replace(f"{root}/docs/performance.md", f"\n{table}\n{place}\n")
    replace(f"{root}/README.md", sentence(rows))
    titles = [title.replace("`", "") for title, _ in works]
    with open(f"{root}/docs/performance.svg", "w", encoding="utf-8") as file:
        file.write(chart(rows, [(title, text) for title, (_, text) in zip(titles, works)]))


def thousands(value):
    """Three digits are more than such a measurement is worth."""
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}"


def sentence(rows):
    figures = {name: thousands(figures[0]) for name, figures in rows}
    others = [f"{name} {figure}" for name, figure in figures.items() if name not in ("the mirror", "nginx")]
    listed = ", ".join(others[:-1]) + " and " + others[-1] if len(others) > 1 else "".join(others)
    return (
        f"The mirror serves {figures['the mirror']} index files per second; nginx serves {figures['nginx']}, {listed}."
    )


def replace(path, text):
    with open(path, encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
    _, after = rest.split(END)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + text + END + after)


def chart(rows, works):
    """One group of bars for each work. The style has colours for light and dark readers."""
    width, label, bar, gap, head = 720, 130, 18, 6, 34
    group = head + len(rows) * (bar + gap)
    height = len(works) * group + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img" aria-label="The mirror beside other servers">',
        "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600}.b{fill:#8c959f}.m{fill:#b7410e}"
        ".g{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.b{fill:#6e7681}.m{fill:#f0883e}"
        ".g{fill:#0d1117}}</style>",
        f'<rect class="g" width="{width}" height="{height}"/>',
    ]
    for number, (title, text) in enumerate(works):
        top = number * group
        better = "more is better" if title.endswith("/s") else "less is better"
        parts.append(f'<text class="t" x="12" y="{top + 24}">{title} ({better})</text>')
        most = max(figures[number] for _, figures in rows)
        for line, (name, figures) in enumerate(rows):
            y = top + head + line * (bar + gap)
            length = max(1, (width - label - 90) * figures[number] / most)
            style = "m" if name == "the mirror" else "b"
            parts.append(f'<text x="12" y="{y + 14}">{name}</text>')
            parts.append(f'<rect class="{style}" x="{label}" y="{y}" width="{length:.1f}" height="{bar}" rx="2"/>')
            parts.append(f'<text x="{label + length + 6:.1f}" y="{y + 14}">{text(figures[number])}</text>')
    return "\n".join(parts) + "\n</svg>\n"


main()

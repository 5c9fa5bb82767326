"""The report of an evaluation as one file that needs nothing else: text, tables, and pictures drawn as SVG."""

from __future__ import annotations

from html import escape
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from mlcli.evaluation.scores import Curve

SIDE, LEFT, TOP, ROOM = 300, 52, 16, 44  # of the square that is drawn in, and beside it
POINTS = 300  # of one line; more would not be seen
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#475569", "#92400e")
TITLES = {
    "roc_curve_plot": "ROC",
    "precision_recall_curve_plot": "Precision and recall",
    "lift_curve_plot": "Lift",
    "calibration_curve_plot": "Calibration",
    "confusion_matrix": "Confusion",
    "residuals_plot": "Residuals",
    "per_class_metrics": "Classes",
}
STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left}.l{text-align:left}
.pictures{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{font-weight:600}
svg{max-width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:currentColor}
.warn{border-left:3px solid #d97706;padding:.1rem .8rem;margin:.4rem 0}.bad{border-left:3px solid #dc2626;padding:.1rem .8rem;margin:.4rem 0}
.good{border-left:3px solid #059669;padding:.1rem .8rem;margin:.4rem 0}.dim{opacity:.7}
"""


# -- pictures


def drawn(curve: Curve) -> str:
    """The curve as an ``<svg>`` element; "" for what is only a table."""
    if curve.kind == "confusion":
        return _confusion(curve)
    series = _series(curve)
    if not series:
        return ""
    if curve.kind == "residuals":
        return plot(series, "predicted", "truth − predicted", dots=True, level=0.0)
    if curve.kind == "lift":
        return plot(series, "share of rows", "lift", level=1.0)
    names = {
        "roc": ("false positive rate", "true positive rate"),
        "precision-recall": ("recall", "precision"),
        "calibration": ("predicted", "observed"),
    }[curve.kind]
    return plot(series, *names, unit=True, diagonal=curve.kind != "precision-recall", marks=curve.kind == "calibration")


def file(picture: str) -> str:
    """The element as a file of its own."""
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    head = picture.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" color="#111" ', 1)
    place = head.index(">") + 1
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head[:place]}{white}{head[place:]}\n'


Series = List[Tuple[str, List[Tuple[float, float]]]]


def _series(curve: Curve) -> Series:
    if curve.kind in ("roc", "precision-recall"):
        found: Dict[str, List[Tuple[float, float]]] = {}
        for label, x, y, *_ in curve.rows:
            found.setdefault(str(label), []).append((x, y))
        return [(label, _thinned(points)) for label, points in found.items()]
    if curve.kind in ("lift", "calibration", "residuals"):
        return [("", _thinned([(row[0], row[1]) for row in curve.rows]))]
    return []


def _thinned(points: List[Tuple[float, float]]) -> List[Tuple[float, float]]:
    if len(points) <= POINTS:
        return points
    step = (len(points) - 1) / (POINTS - 1)
    return [points[round(place * step)] for place in range(POINTS)]


def plot(
    series: Series,
    across: str,
    up: str,
    *,
    unit: bool = False,
    diagonal: bool = False,
    marks: bool = False,
    dots: bool = False,
    level: float | None = None,
) -> str:
    """Lines or dots in a square with its axes named."""
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points] + ([] if level is None else [level])
    low_x, high_x = (0.0, 1.0) if unit or level == 1.0 else _span(xs)
    low_y, high_y = (0.0, 1.0) if unit else _span(ys)

    def place(x: float, y: float) -> str:
        right = LEFT + (x - low_x) / (high_x - low_x) * SIDE
        return f"{right:.1f},{TOP + SIDE - (y - low_y) / (high_y - low_y) * SIDE:.1f}"

    parts = [
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" opacity=".3"/>'
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = LEFT + share * SIDE, TOP + SIDE - share * SIDE
        parts.append(
            f'<text x="{x:.0f}" y="{TOP + SIDE + 15}" text-anchor="middle">{_short(low_x + share * (high_x - low_x))}</text>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{_short(low_y + share * (high_y - low_y))}</text>'
        )
    parts.append(f'<text x="{LEFT + SIDE / 2}" y="{TOP + SIDE + 32}" text-anchor="middle">{escape(across)}</text>')
    middle = TOP + SIDE / 2
    parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    reference = [((0.0, 0.0), (1.0, 1.0))] if diagonal else [] if level is None else [((low_x, level), (high_x, level))]
    for one, other in reference:
        parts.append(
            f'<polyline points="{place(*one)} {place(*other)}" fill="none" stroke="currentColor" stroke-dasharray="4 4" opacity=".5"/>'
        )
    for number, (label, points) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        if dots or marks:
            spots = (place(*point).split(",") for point in points)
            parts += [
                f'<circle cx="{x}" cy="{y}" r="{3 if marks else 2}" fill="{colour}" opacity=".7"/>' for x, y in spots
            ]
        if not dots:
            line = " ".join(place(*point) for point in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if label:
            parts.append(
                f'<text x="{LEFT + SIDE - 6}" y="{TOP + SIDE - 8 - 14 * number}" text-anchor="end" style="fill:{colour}">{escape(label)}</text>'
            )
    return _svg(LEFT + SIDE + 16, TOP + SIDE + ROOM, parts)


def _span(values: Sequence[float]) -> Tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def _short(value: float) -> str:
    return f"{value:.3g}"


def _confusion(curve: Curve) -> str:
    labels = [str(name) for name in curve.columns[1:]]
    if len(labels) > 30:
        return ""
    side = max(16, min(64, SIDE // max(len(labels), 1)))
    left = 24 + 7 * max(len(label) for label in labels)
    parts = [f'<text x="{left + side * len(labels) / 2}" y="12" text-anchor="middle">predicted</text>']
    for line, (label, *counts) in enumerate(curve.rows):
        total = sum(counts) or 1
        y = 34 + line * side
        parts.append(f'<text x="{left - 6}" y="{y + side / 2 + 4}" text-anchor="end">{escape(str(label))}</text>')
        parts.append(
            f'<text x="{left + line * side + side / 2}" y="28" text-anchor="middle">{escape(labels[line])}</text>'
        )
        for column, count in enumerate(counts):
            x, share = left + column * side, count / total
            ink = "#fff" if share > 0.5 else "currentColor"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#2563eb" fill-opacity="{share:.2f}" stroke="#8884"/>'
            )
            parts.append(
                f'<text x="{x + side / 2}" y="{y + side / 2 + 4}" text-anchor="middle" style="fill:{ink}">{count}</text>'
            )
    parts.append(
        f'<text transform="translate(12 {34 + side * len(labels) / 2}) rotate(-90)" text-anchor="middle">true</text>'
    )
    return _svg(left + side * len(labels) + 16, 34 + side * len(labels) + 12, parts)


def _whiskers(figures: Sequence[Tuple[str, Mapping[str, Any]]]) -> str:
    """Each score's folds as dots, its value and its interval, on the span that they take."""
    parts = []
    for line, (name, figure) in enumerate(figures):
        values = [value for value in figure.get("folds", ()) if value is not None]
        known = [
            value for value in (*values, figure["value"], figure.get("low"), figure.get("high")) if value is not None
        ]
        low, high = _span(known)
        y = 20 + 30 * line

        def place(value: float, low: float = low, high: float = high) -> float:
            return 220 + (value - low) / (high - low) * 320

        parts.append(f'<text x="210" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts += [
            f'<circle cx="{place(value):.1f}" cy="{y}" r="3" fill="currentColor" opacity=".25"/>' for value in values
        ]
        if figure.get("low") is not None and figure.get("high") is not None:
            parts.append(
                f'<line x1="{place(figure["low"]):.1f}" x2="{place(figure["high"]):.1f}" y1="{y}" y2="{y}" stroke="#2563eb" stroke-width="2"/>'
            )
            parts += [
                f'<text x="{place(figure[end]):.1f}" y="{y + 15}" text-anchor="middle" opacity=".7">{_short(figure[end])}</text>'
                for end in ("low", "high")
            ]
        parts.append(f'<circle cx="{place(figure["value"]):.1f}" cy="{y}" r="4.5" fill="#2563eb"/>')
    return _svg(580, 30 + 30 * len(figures), parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">{"".join(parts)}</svg>'


# -- the page


def html(report: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    """The whole page."""
    figures = report["metrics"]
    compared = report["comparisons"]
    scored = [
        (name, figure)
        for name, figure in figures.items()
        if figure["value"] is not None and figure.get("low") is not None
    ]
    parts = [
        f"<h1>{escape(report['model'])}</h1>",
        f'<p class="dim">{escape(summary(report))}</p>',
        *(f'<p class="bad">not reached: {escape(line)}</p>' for line in report["failed"]),
        *(['<p class="good">all thresholds are reached</p>'] if report["thresholds"] and report["passed"] else []),
        *(f'<p class="warn">{escape(line)}</p>' for line in report["warnings"]),
        "<h2>Scores</h2>",
        table(
            ("", "value", f"{report['level']:.0%} interval", "", "sd of folds"),
            [_figure_row(item) for item in figures.items()],
        ),
        _whiskers(scored) if scored else "",
        f'<p class="dim">{escape(caveat(report))}</p>',
    ]
    if compared:
        parts += ["<h2>Against the baseline</h2>", table(CONTRAST, [_contrast_row(item) for item in compared])]
        parts.append(
            f'<p class="dim">A difference is called real where its p-value{", raised by Holm for several baselines," if len(report["baselines"]) > 1 else ""}'
            f" is below {report['alpha']:g}. Not real means: not shown, which is not the same as none.</p>"
        )
    pictures = [(name, drawn(curve)) for name, curve in curves.items()]
    shown = [
        f"<figure><figcaption>{escape(TITLES.get(name, name))}</figcaption>{picture}</figure>"
        for name, picture in pictures
        if picture
    ]
    if shown:
        parts += ["<h2>Pictures</h2>", f'<div class="pictures">{"".join(shown)}</div>']
    for curve in curves.values():
        if curve.kind == "table":
            rows = [[_number(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in curve.rows]
            parts += ["<h2>Classes</h2>", table(curve.columns, rows)]
    parts += ["<h2>How</h2>", table(("", ""), [(name, value) for name, value in _facts(report)])]
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Evaluation of {escape(report['model'])}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def summary(report: Mapping[str, Any]) -> str:
    """What was done, in a line."""
    data = report["data"]
    method = report["method"]
    how = {"none": "scored as it is", "holdout": "fitted and tested once"}.get(
        method, f"{method}, {report['folds']} fits"
    )
    return f"{report['model_type']}, {how}, on {data['rows']:,} rows of {data['name']} ({data['digest']}), target {report['target']}"


def caveat(report: Mapping[str, Any]) -> str:
    """What the intervals are, and what they are not."""
    method = report["method"]
    if method == "bootstrap":
        return (
            "Refitted on resamples. .632+ weighs the error on the rows a model was fitted on against that on rows it has not seen;"
            " the interval is where the scores of single refits lie, not where the truth lies."
        )
    if method in ("holdout", "none"):
        return (
            "The intervals tell what other test rows would have given for this one fitted model; another training set would"
            " add to that. With few rows, BCa and percentile intervals cover less than they say."
        )
    return (
        "Mean of the folds. Folds share training rows, so the interval is widened as Nadeau and Bengio propose; it is"
        " approximate, since no unbiased one exists."
    )


CONTRAST = ("score", "baseline", "difference", "interval", "test", "p", "real?")


def _contrast_row(item: Mapping[str, Any]) -> List[str]:
    bounds = "" if item["low"] is None else f"{_number(item['low'])} … {_number(item['high'])}"
    return [
        item["metric"],
        item["baseline"],
        _signed(item["difference"]),
        bounds,
        item["test"],
        p_text(item["p_adjusted"]),
        verdict(item),
    ]


def verdict(item: Mapping[str, Any]) -> str:
    """Better, worse, or not shown."""
    if not item["significant"]:
        return "not shown"
    return "better" if item["better"] else "worse"


def p_text(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4g}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return (
        str(int(value))
        if float(value).is_integer() and abs(value) < 1e9
        else f"{value:.4f}"
        if 1e-3 <= abs(value) < 1e5
        else f"{value:.4g}"
    )


def _figure_row(item: Tuple[str, Mapping[str, Any]]) -> List[str]:
    name, figure = item
    bounds = "" if figure.get("low") is None else f"{_number(figure['low'])} … {_number(figure['high'])}"
    return [
        name,
        _number(figure["value"]),
        bounds,
        figure.get("interval", ""),
        "" if figure.get("std") is None else _number(figure["std"]),
    ]


def _facts(report: Mapping[str, Any]) -> List[Tuple[str, str]]:
    data, scheme = report["data"], report["scheme"]
    return [
        ("run", report["run_id"]),
        ("data", f"{data['source'] or data['name']}, digest {data['digest']}"),
        ("splitter", report["splitter"]),
        ("seed", str(scheme["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("took", f"{report['seconds']:.1f} s"),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if any(head) else ''}<tbody>{lines}</tbody></table>"

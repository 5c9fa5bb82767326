"""The report of an evaluation as one file that needs nothing else: text, tables, and pictures drawn as SVG."""

from __future__ import annotations

from html import escape
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from mlcli.evaluation import pictures
from mlcli.evaluation.pictures import legend, picture, svg
from mlcli.evaluation.scores import Curve

SIDE = 300  # of the square that is drawn in
POINTS = 300  # of one line; more would not be seen
TITLES = {
    "roc_curve_plot": "ROC",
    "precision_recall_curve_plot": "Precision and recall",
    "lift_curve_plot": "Lift",
    "calibration_curve_plot": "Calibration",
    "confusion_matrix": "Confusion",
    "residuals_plot": "Residuals",
    "per_class_metrics": "Classes",
}
STYLE = f"""
:root{{color-scheme:light dark;--good:#1a7f4b;--bad:#c02b3a;--warn:#9a6700;--dim:#5d6675}}
@media screen and (prefers-color-scheme:dark){{:root{{--good:#57c78b;--bad:#ff7b84;--warn:#e3b341;--dim:#98a1b3}}}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}}
h1{{font-size:1.4rem;margin-bottom:.2rem}}h2{{font-size:1.1rem;margin:2rem 0 .4rem}}
.wide{{overflow-x:auto;margin:.5rem 0}}table{{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}}
td,th{{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}}th{{font-weight:600}}tbody th{{font-weight:400}}
td:first-child,th:first-child,.l{{text-align:left}}.words .l{{white-space:normal;overflow-wrap:break-word}}.words .l:last-child{{min-width:16ch;overflow-wrap:anywhere}}
.pictures{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr));gap:1.5rem 2rem;align-items:start}}
figure{{margin:0;break-inside:avoid}}figcaption{{font-weight:600;margin-bottom:.3rem}}
svg{{width:100%;height:auto;max-width:36rem;font:12px system-ui,sans-serif}}svg text{{fill:currentColor}}figure svg[width]{{width:auto}}
.legend{{list-style:none;padding:0;margin:.2rem 0;display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.86rem}}
.legend li{{display:flex;align-items:center;gap:.4rem}}.legend svg{{width:16px;height:4px;flex:none}}
.warn,.bad,.good{{border-left:3px solid var(--warn);padding:.1rem .8rem;margin:.4rem 0}}.bad{{border-color:var(--bad)}}.good{{border-color:var(--good)}}
.dim,.untrusted td{{color:var(--dim)}}.light{{font-weight:600}}
{pictures.STYLE}
@media print{{body{{max-width:none;margin:0;font-size:10pt}}h2{{break-after:avoid}}tr{{break-inside:avoid}}.wide{{overflow:visible}}td,th{{white-space:normal;padding:.2rem .4rem}}.pictures{{grid-template-columns:1fr 1fr}}}}
"""


# -- pictures


AXES: Dict[str, Dict[str, Any]] = {
    "roc": {"names": ("false positive rate", "true positive rate"), "across": "share", "up": "share", "diagonal": True},
    "precision-recall": {"names": ("recall", "precision"), "across": "share", "up": "share", "square": True},
    "calibration": {"names": ("predicted", "observed"), "across": "share", "up": "share", "diagonal": True, "marks": True},
    "lift": {"names": ("share of rows", "lift"), "across": "share", "level": 1.0},
    "residuals": {"names": ("predicted", "truth − predicted"), "dots": True, "level": 0.0},
}  # fmt: skip


def shape(curve: Curve) -> Dict[str, Any]:
    """Where the curve's lines are; {} for what is only a table."""
    return picture(_series(curve), **AXES[curve.kind]) if curve.kind in AXES else {}


def standalone(curve: Curve) -> str:
    """The curve as an SVG file of its own; "" for what is only a table."""
    if curve.kind == "confusion":
        return pictures.file(_confusion(curve, ""))
    made = shape(curve)
    return pictures.file(svg(made, "", legend=True)) if made else ""


def figure(title: str, made: Mapping[str, Any], below: str = "") -> str:
    """A picture with its title above it and the names of its lines below; "" where there is nothing to draw."""
    if not made:
        return ""
    note = f'<p class="dim">{escape(below)}</p>' if below else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg(made, title)}{legend(made)}{note}</figure>"


def _series(curve: Curve) -> List[Dict[str, Any]]:
    if curve.kind in ("roc", "precision-recall"):
        found: Dict[str, List[Tuple[float, float]]] = {}
        for label, x, y, *_ in curve.rows:
            found.setdefault(str(label), []).append((x, y))
        return [{"name": label, "points": _thinned(points)} for label, points in found.items()]
    return [{"name": "", "points": _thinned([(row[0], row[1]) for row in curve.rows])}]


def _thinned(points: List[Tuple[float, float]]) -> List[Tuple[float, float]]:
    if len(points) <= POINTS:
        return points
    step = (len(points) - 1) / (POINTS - 1)
    return [points[round(place * step)] for place in range(POINTS)]


def _confusion_figure(curve: Curve, title: str) -> str:
    made = _confusion(curve, title)
    return f"<figure><figcaption>{escape(title)}</figcaption>{made}</figure>" if made else ""


def _span(values: Sequence[float]) -> Tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _confusion(curve: Curve, title: str) -> str:
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
                f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#3357d6" fill-opacity="{share:.2f}" stroke="#8884"/>'
            )
            parts.append(
                f'<text x="{x + side / 2}" y="{y + side / 2 + 4}" text-anchor="middle" style="fill:{ink}">{count}</text>'
            )
    parts.append(
        f'<text transform="translate(12 {34 + side * len(labels) / 2}) rotate(-90)" text-anchor="middle">true</text>'
    )
    return _svg(left + side * len(labels) + 16, 34 + side * len(labels) + 12, parts, title)


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
                f'<line x1="{place(figure["low"]):.1f}" x2="{place(figure["high"]):.1f}" y1="{y}" y2="{y}" class="c0" stroke-width="2"/>'
            )
            parts += [
                f'<text x="{place(figure[end]):.1f}" y="{y + 15}" text-anchor="middle" opacity=".7">{_short(figure[end])}</text>'
                for end in ("low", "high")
            ]
        parts.append(f'<circle cx="{place(figure["value"]):.1f}" cy="{y}" r="4.5" class="c0"/>')
    return _svg(580, 30 + 30 * len(figures), parts, "Scores with their intervals")


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    label = f' aria-label="{escape(title)}"' if title else ""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img"{label}>{"".join(parts)}</svg>'


# -- the page


def html(report: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    """The whole page."""
    scores = report["metrics"]
    compared = report["comparisons"]
    scored = [
        (name, score) for name, score in scores.items() if score["value"] is not None and score.get("low") is not None
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
            [_figure_row(item) for item in scores.items()],
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
    figures = []
    for name, curve in curves.items():
        title = TITLES.get(name, name)
        figures.append(_confusion_figure(curve, title) if curve.kind == "confusion" else figure(title, shape(curve)))
    if any(figures):
        parts += ["<h2>Pictures</h2>", f'<div class="pictures">{"".join(figures)}</div>']
    for curve in curves.values():
        if curve.kind == "table":
            rows = [[_number(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in curve.rows]
            parts += ["<h2>Classes</h2>", table(curve.columns, rows)]
    parts += ["<h2>How</h2>", table(("", ""), _facts(report), "words")]
    return document(f"Evaluation of {report['model']}", parts)


def document(title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


SUMMARY = "{kind}, {how}, on {rows} rows of {data} ({digest}), target {target}"
METHODS = {"none": "scored as it is", "holdout": "fitted and tested once"}  # of others, how often
FITS = "{method}, {fits} fits"


def summary(report: Mapping[str, Any], say: Callable[..., str] = str.format) -> str:
    """What was done, in a line; ``say`` fills a text in, and may do so in another language."""
    data, method = report["data"], report["method"]
    how = METHODS.get(method, "")
    return say(
        SUMMARY, kind=say(report["model_type"]), how=say(how) if how else say(FITS, method=method, fits=report["folds"]),
        rows=f"{data['rows']:,}", data=data["name"], digest=data["digest"], target=report["target"],
    )  # fmt: skip


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


def _numeric(cell: str) -> bool:
    return not any([letter.isalpha() and letter != "e" for letter in str(cell)])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Of text; the first cell of a line is what the line is about. ``words``: text that may be long."""
    kinds = ["" if column and all(map(_numeric, cells)) else ' class="l"' for column, cells in enumerate(zip(*rows))]
    kinds += [""] * (len(head) - len(kinds))
    top = "".join(f'<th scope="col"{kind_}>{escape(cell)}</th>' for cell, kind_ in zip(head, kinds))
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds[1:], row[1:]))}</tr>'
        for row in [[str(cell) for cell in row] for row in rows]
    )
    above = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f'<div class="{f"wide {kind}".strip()}" tabindex="0"><table>{above}<tbody>{lines}</tbody></table></div>'

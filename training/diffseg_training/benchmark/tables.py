"""Tables from rows: Markdown and CSV, mean and spread over seeds, Dice against seconds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
Cell = str | float | int | None


def finished(rows: Iterable[Row]) -> list[Row]:
    """Rows with figures."""
    return [row for row in rows if "error" not in row]


def grouped(rows: Iterable[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some fields, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(field) for field in fields), []).append(row)
    return groups


def by_test(rows: Iterable[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the scans that they test, joined with ``+``, and by some more fields."""
    named = [{**row, "tested": "+".join(row["test"])} for row in rows]
    return grouped(named, "tested", *fields)


def spread(values: Iterable[float | None], scale: float = 1.0, digits: int = 3) -> str:
    """Mean, and the standard deviation where there is more than one value."""
    known = [scale * value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "-"
    mean = f"{np.mean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"


def markdown(head: Sequence[str], body: Iterable[Sequence[Cell]]) -> str:
    """Format a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_word(cell) for cell in cells) + " |" for cells in body]
    return "\n".join(lines) + "\n"


def to_csv(rows: Iterable[Row]) -> str:
    """All rows flat, one column a label's Dice; failed rows with their error."""
    flat = []
    for row in rows:
        line = {k: v for k, v in row.items() if not isinstance(v, (dict, list))}
        line["train"], line["test"] = "+".join(row["train"]), "+".join(row["test"])
        line["gflops"] = float(np.mean(row["gflops"])) if "gflops" in row else None
        hardware = row.get("hardware", {})
        line |= {k: hardware.get(k) for k in ("commit", "hardware", "device", "threads")}
        line |= {f"dice {k}": v["dice"] for k, v in row.get("labels", {}).items()}
        flat.append(line)
    columns = list(dict.fromkeys(key for line in flat for key in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def by_amount(
    rows: Sequence[Row],
    titles: Callable[[str], str],
    figure: str = "dice",
    scale: float = 1.0,
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Methods down, painted amounts across: mean ± deviation over seeds and splits.

    `published` has figures by method and amount that are set beside ours in brackets. A cell that
    tests fewer scans than the others says so, for its mean is about other patients.
    """
    done = finished(rows)
    scans = len(_tested(done))
    amounts = sorted({row["amount"] for row in done}, key=_amount_order)
    body: list[list[Cell]] = []
    for (method,), own in grouped(rows, "method").items():
        cells = grouped(finished(own), "amount")
        if not cells:
            body.append([titles(method), *["failed"] * len(amounts)])
            continue
        digits = 1 if scale == 100 or figure.endswith("mm") else 3
        theirs = (published or {}).get(method, {})
        line: list[Cell] = [titles(method)]
        for amount in amounts:
            found = cells.get((amount,), [])
            text = spread([row[figure] for row in found], scale, digits)
            text += f" ({theirs[amount]:.2f})" if amount in theirs else ""
            text += f" [{n} of {scans}]" if 0 < (n := len(_tested(found))) < scans else ""
            line.append(text)
        body.append(line)
    return markdown(["method", *amounts], body)


def _tested(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    return {tuple(row["test"]) for row in rows}


def over_all_tests(rows: Iterable[Row]) -> list[Row]:
    """Rows of those methods and amounts that test every scan, whose means can be compared."""
    done = finished(rows)
    scans = _tested(done)
    cells = grouped(done, "method", "amount").values()
    return [row for own in cells if _tested(own) == scans for row in own]


def by_budget(rows: Sequence[Row], titles: Callable[[str], str], figure: str = "dice") -> str:
    """Methods down, budgets across, with the area under the Dice-seconds curve and the cost."""
    done = finished(rows)
    budgets = sorted({row["budget"] for row in done if row["budget"] is not None})
    best = sorted(grouped(done, "method").items(), key=lambda item: -area(item[1], budgets, figure))
    body = []
    for (method,), own in best:
        cells = grouped(own, "budget")
        alike = [r[figure] for r in cells.get((None,), [])]
        longest = own if alike else cells[(max(b for (b,) in cells),)]
        body.append(
            [titles(method)]
            + [spread(alike or [r[figure] for r in cells.get((b,), [])]) for b in budgets]
            + [
                "-" if math.isnan(under := area(own, budgets, figure)) else f"{under:.3f}",
                *(
                    spread([r[f] for r in longest], 1, 1)
                    for f in ("fit_seconds", "predict_seconds")
                ),
                f"{max(r['peak_memory_bytes'] for r in own) / 2**30:.2f}",
            ]
        )
    head = [
        "method",
        *(f"{b:g} s" for b in budgets),
        "area",
        "learnt in s",
        "predicted in s",
        "GiB",
    ]
    return markdown(head, body)


def area(rows: Sequence[Row], budgets: Sequence[float], figure: str = "dice") -> float:
    """Mean height of the curve of a figure against the logarithm of the budget.

    Methods without a budget have the same figure everywhere; with one budget the area is the
    figure itself.
    """
    own = finished(rows)
    flat = [row[figure] for row in own if row["budget"] is None]
    if flat:
        return float(np.mean(flat))
    heights = []
    for budget in budgets:
        found = [row[figure] for row in own if row["budget"] == budget]
        if not found:
            return math.nan if len(budgets) > 1 else 0.0
        heights.append(float(np.mean(found)))
    if len(budgets) == 1:
        return heights[0]
    x = np.log(budgets)
    return float(np.trapezoid(heights, x) / (x[-1] - x[0]))


def per_label(rows: Sequence[Row], titles: Callable[[str], str]) -> str:
    """Methods down, structures across: Dice in percent."""
    done = finished(rows)
    names = list(dict.fromkeys(name for row in done for name in row["labels"]))
    body = [
        [titles(method)]
        + [spread([r["labels"][name]["dice"] for r in own], 100, 1).split(" ")[0] for name in names]
        + [spread([r["dice"] for r in own], 100, 1)]
        for (method,), own in grouped(done, "method").items()
    ]
    return markdown(["method", *names, "mean"], body)


def costs(rows: Sequence[Row], titles: Callable[[str], str]) -> str:
    """Steps, real seconds, memory and learning rate of each method, means over its rows."""

    def mean(own: Sequence[Row], field: str) -> str:
        known = [row[field] for row in own if row[field] is not None]
        return f"{np.mean(known):.0f}" if known else "-"

    body = [
        (
            titles(method),
            *(mean(own, field) for field in ("steps", "fit_seconds", "predict_seconds")),
            f"{max(r['peak_memory_bytes'] for r in own) / 2**30:.2f}",
            ", ".join(f"{rate:.3g}" for rate in sorted({row["rate"] for row in own})),
            own[0]["note"],
        )
        for (method,), own in grouped(finished(rows), "method").items()
    ]
    head = ["method", "steps", "learnt in s", "predicted in s", "GiB", "× learning rate", "note"]
    return markdown(head, body)


def gains(rows: Sequence[Row], titles: Callable[[str], str]) -> str:
    """Dice from a model of another volume, and what that gains; empty where there is no such row.

    The row to compare with is the same method's, seed's and budget's on the same painted slices.
    """
    done = finished(rows)
    same = ("method", "test", "painted", "seed", "budget")
    plain = {str([row[k] for k in same]): row for row in done if row["protocol"] == "in-volume"}
    continued = [row for row in done if row["protocol"] == "cross-volume"]
    body = []
    for _, own in grouped(
        [{**row, "case": str([row[k] for k in ("start", "test", "budget")])} for row in continued],
        "method",
        "case",
        "slices",
    ).items():
        first = own[0]
        before = [plain.get(str([row[k] for k in same])) for row in own]
        known = [(row, base) for row, base in zip(own, before, strict=True) if base]
        body.append(
            [
                titles(first["method"]),
                "+".join(first["test"]),
                ", ".join(f"{scan}, {len(zs)} slices" for scan, zs in first["start"].items()),
                first["slices"],
                "-" if first["budget"] is None else f"{first['budget']:g}",
                spread([base["dice"] for _, base in known]),
                spread([row["dice"] for row in own]),
                spread([100 * (row["dice"] - base["dice"]) for row, base in known], 1, 1),
            ]
        )
    head = ["method", "volume", "model of", "slices", "budget", "backbone", "model", "points"]
    return markdown(head, sorted(body, key=lambda line: [str(c) for c in line[:3]])) if body else ""


def calibrations(rows: Sequence[Row], titles: Callable[[str], str]) -> str:
    """Calibration error, and the share of errors in the least confident tenth of pixels."""
    fields = [
        f"{what}_{where}"
        for where in ("body", "slice")
        for what in ("calibration_error", "errors_in_least_confident_tenth")
    ]
    done = [row for row in finished(rows) if row.get(fields[0]) is not None]
    cases = by_test(done, "method", "protocol", "slices", "budget")
    body = [
        [
            titles(method),
            protocol,
            tested,
            slices,
            "-" if budget is None else f"{budget:g}",
            *(spread([row[f] for row in own], 100, 1) for f in fields),
        ]
        for (tested, method, protocol, slices, budget), own in cases.items()
    ]
    head = ["method", "protocol", "tested", "slices", "budget"]
    head += ["ECE %, body", "errors in the tenth %, body", "ECE %, slice"]
    return markdown([*head, "errors in the tenth %, slice"], body) if body else ""


def failures(rows: Sequence[Row]) -> str:
    """List the rows that failed; empty where none did."""
    lines = [
        f"- {row['method']}, {row['protocol']}, {row['amount']}, seed {row['seed']}: {row['error']}"
        for row in rows
        if "error" in row
    ]
    return "\n".join(lines) + "\n" if lines else ""


def _word(cell: Cell) -> str:
    return "-" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _amount_order(amount: str) -> tuple[bool, float, float]:
    """Slices before shares; patients × slices of each by their slices, all of them last."""
    number, *rest = amount.split(" ")
    if rest[0] == "×":
        return False, math.inf if rest[1] == "all" else float(rest[1]), float(number)
    return rest[0] == "%", float(number), 0.0

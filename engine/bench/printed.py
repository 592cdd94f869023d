"""The report as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.output import Output

PERCENTILES = ("p50", "p95", "p99", "p99.9", "max")


def show(out: Output, document: Mapping[str, Any]) -> None:
    """Print values, then latency, then what it costs, then ratios."""
    for name, found in document.get("transport", {}).items():
        _comparison(out, f"transport, {name}", found)
    if "decision" in document:
        _comparison(out, f"decision, {document['decision']['bundle']}", document["decision"])
        out.result({"p50 beyond floor + step, ms": document["decision"]["beyond_floor_and_step_ms"]})
    if "step" in document:
        out.table("step against recompute, ms", [_step(name, one) for name, one in document["step"].items()])
    if "many" in document:
        out.result({"many": document["many"]["stream"]})
        for name, rows in document["many"]["backends"].items():
            out.table(f"many streams on one core, {name}", rows)
    out.result({"machine": document["machine"]})


def _comparison(out: Output, title: str, found: Mapping[str, Any]) -> None:
    systems = found["systems"]
    if found["skipped"]:
        out.result({f"skipped {name}": why for name, why in found["skipped"].items()})
    latency = [latency_row(name, one, found["values"]) for name, one in systems.items()]
    out.table(f"{title}: push to callback, ms ({found['stream']})", latency)
    out.table(f"{title}: cost", [cost_row(name, one) for name, one in systems.items()])
    for name, one in systems.items():
        if delay := one.get("algorithmic_delay_ms"):
            out.result({f"{name}, delay in ms": delay})
    for base, ratios in found["ratios"].items():
        if ratios:
            rows = [
                {"system": name, **{f"{key} x": value for key, value in one.items()}}
                for name, one in ratios.items()
            ]
            out.table(f"{title}: as a multiple of {base}", rows)


def latency_row(name: str, one: Mapping[str, Any], values: Mapping[str, float | None]) -> dict[str, Any]:
    """Return a system's row of the first table: how right, then how late."""
    apart = values.get(name)
    return {
        "system": name,
        "values": None if apart is None else f"{apart:.0e}",
        **{key: one["latency_ms"][key] for key in PERCENTILES},
        "n": one["n"],
        "missed": one["missed"],
        "lost": one["lost"],
    }


def cost_row(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a system's row of the second table."""
    rounds = one["p50_rounds"]
    return {
        "system": name,
        "CPU %": one["cpu_percent"],
        "RSS MB": one["rss_mb"],
        "growth": one["growth_mb"],
        "ready s": one["startup_s"]["ready"],
        "first s": one["startup_s"]["first"],
        "p50 of rounds": None if rounds is None else "-".join(f"{ms:.2f}" for ms in rounds),
        "outlet late": one["outlet_late_ms"],
    }


def _step(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "backend": name,
        "step p50": one["step_ms"]["p50"],
        "step p99": one["step_ms"]["p99"],
        f"recompute p50 ({one['hops']} hops)": one["recompute_ms"]["p50"],
        "x": one["x"],
        "same values": one["same"],
    }

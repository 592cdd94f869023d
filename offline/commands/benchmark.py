"""`bcitrain benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._shared import DONE_STAYS, Changes, Json, keeping, need


def benchmark(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML of the benchmark; see configs/.")],
    changes: Changes = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="MODEL", help="Run only this model; may be repeated."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing: report what is done.")] = False,
    json: Json = False,
) -> None:
    """Compare models over folds of people and over seeds; goes on where it was interrupted."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "safetensors", "sklearn", "pyriemann", "matplotlib")
        from offline.benchmark.benchmark import benchmark as run
        from offline.benchmark.recipe import load

        recipe = load(config, changes or ())
        with keeping(out, DONE_STAYS), bar(out, "benchmark") as progress:
            document = run(recipe, only=only, report_only=report, progress=progress)
        if json:
            out.document(document)
            return
        shown = [
            {
                "model": row["model"],
                "seeds": row["seeds"],
                **{k: v["mean"] for k, v in row["figures"].items()},
            }
            for row in document["rows"]
        ]
        out.table(document["figure"], sorted(shown, key=lambda row: -(row[document["figure"]] or 0.0)))
        if document["missing"]:
            out.say(f"{len(document['missing'])} cells are not done yet; the same command does them.")
        out.say(f"Tables, pictures and every figure: {recipe.output}")

"""The `bcitrain` command: everything one does with recordings, from training to a scored bundle."""

from __future__ import annotations

import typer

from offline.commands import (
    benchmark,
    card,
    cost,
    crossval,
    data,
    draw,
    evaluate,
    export,
    finetune,
    operate,
    personalise,
    pretrain,
    probe,
    reconstruct,
    train,
)

app = typer.Typer(
    help="Trains, exports and evaluates the models that bcistream runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    app()


app.command()(train.train)
app.command()(pretrain.pretrain)
app.command()(finetune.finetune)
app.command()(probe.probe)
app.command()(crossval.crossval)
app.command()(reconstruct.reconstruct)
app.command()(export.export)
app.command()(evaluate.evaluate)
app.command()(personalise.personalise)
app.command()(operate.operate)
app.command()(benchmark.benchmark)
app.command()(draw.draw)
app.command()(card.card)
app.command()(cost.cost)
app.add_typer(data.app, name="data")


if __name__ == "__main__":  # torchrun -m offline.cli
    main()

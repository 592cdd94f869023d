"""`bcitrain export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.output import Output
from offline.commands._shared import Json, need
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from engine.bundle import Bundle


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The output folder of a training, a pretraining or a fine-tuning."
        ),
    ],
    bundle: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the bundle goes.")],
    part: Annotated[
        str | None, typer.Option(help="Of a pretraining: tokenizer, decoder or backbone.")
    ] = None,
    ch_names: Annotated[
        str | None,
        typer.Option(help="Of a part with a montage: its channels, separated by commas."),
    ] = None,
    training: Annotated[
        bool,
        typer.Option("--training", help="With the weights as trained, for `bcitrain personalise`."),
    ] = False,
    json: Json = False,
) -> None:
    """Write a trained model as a bundle, after checking that the exported step equals the model."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "onnx", "onnxscript")
        from offline.export_folder import drop_others_training

        if training:
            from offline.personal.origin import keep_training
            from offline.train.run import load_run

            load_run(run)  # refuses what is no training
        written = _written(run, bundle, part, _names(ch_names))
        if training:
            keep_training(run, bundle)
        else:
            drop_others_training(run, bundle)
        graph = written.manifest.graph
        out.result(
            {
                "bundle": written.label,
                "folder": str(bundle),
                "puts_out": written.manifest.product,
                "hop": graph.hop,
                "left_context": graph.left_context,
                "delay": graph.delay,
                "bounded": graph.bounded,
                "bytes": sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
            }
        )


def _names(text: str | None) -> tuple[str, ...] | None:
    """Return the channel names of an option, None where it was not given."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise ConfigError(f"--ch-names is a list such as C3,Cz,C4, each name once; not {text!r}.")
    return names


def _written(run: Path, bundle: Path, part: str | None, ch_names: tuple[str, ...] | None) -> Bundle:
    """Export whatever kind of run it is."""
    from offline.export_part import export_part, is_pretraining, part_names
    from offline.finetune.run import is_finetuning

    if is_finetuning(run):
        from offline.export_decoder import export_decoder

        if part is not None or ch_names is not None:
            raise ConfigError(
                f"{run} is a fine-tuning: it has one model for one montage. Leave out --part and --ch-names."
            )
        return export_decoder(run, bundle)

    if not is_pretraining(run):
        from offline.export import export_run
        from offline.train.run import load_run

        finished = load_run(run)
        if part is not None or ch_names is not None:
            raise ConfigError(
                f"{run} is a training: it has one model for one montage. Leave out --part and --ch-names."
            )
        return export_run(finished, bundle)
    if part is None:
        raise ConfigError(
            f"{run} is a pretraining: say which part of it, --part {' or '.join(part_names(run))}."
        )
    return export_part(run, part, bundle, ch_names=ch_names)

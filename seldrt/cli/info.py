"""seldrt info: what a model is, and what each stage of the chain waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from seldrt.cli.shell import setting
from seldrt.config import printable

model_option = setting(
    "--model", env="MODEL", metavar="PATH", meaning="Model file, or the name of a bundled model (compact, light)."
)


@click.command()
@model_option
@click.option("--all", "everything", is_flag=True, help="Also how each network was trained.")
def info(model: str | None, everything: bool) -> None:
    """Describe a model, and the latency of each stage of the chain."""
    from seldrt.pipeline import load_pipeline

    pipeline = load_pipeline(model)
    card = pipeline.model_card
    trained = set() if everything else set(card.get("parameters", ()))  # the networks' names
    for line in card_lines({key: value for key, value in card.items() if key not in trained}):
        click.echo(printable(line))
    click.echo(f"sample_rate: {pipeline.sample_rate} Hz\nlatency:")
    for line in latency_lines(pipeline.latency_table):
        click.echo(line)


def card_lines(card: dict[str, Any], indent: str = "") -> list[str]:
    """A model card as indented lines: what has parts comes last."""
    lines = []
    for key, value in sorted(card.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *card_lines(value, indent + "  ")]
        else:
            texts = [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]
            lines.append(f"{indent}{key}: {', '.join(texts)}")
    return lines


def latency_lines(table: Sequence[tuple[str, float]]) -> list[str]:
    """What each stage waits for, and the sum."""
    rows = [*table, ("total", sum(ms for _, ms in table))]
    return [f"  {stage:<24}{ms:8.1f} ms" for stage, ms in rows]

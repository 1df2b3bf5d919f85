"""seldrt schema: the JSON Schema of all that a daemon says."""

from __future__ import annotations

import json

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of all messages and answers, as they are once unpacked from msgpack."""
    from seldrt.replies import json_schema

    click.echo(json.dumps(json_schema(), indent=2))

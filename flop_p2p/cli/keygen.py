"""`flop-p2p keygen`: the keys of one site."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def keygen(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder to make for the keys")],
    name: Annotated[str, typer.Option(help="name of this site in the federation")],
) -> None:
    """Make the keys of a site: two secret files that stay here, and a public one for the other sites."""
    from flop_p2p.identity.keys import PUBLIC, generate

    public = generate(folder, name)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"keys of {name} written to {folder}; its two secret files never leave this machine"))
    console.print(Text(f"give {folder / PUBLIC} to whoever makes the federation file, and read this to them:"))
    console.print(Text(f"fingerprint: {public.fingerprint}"))

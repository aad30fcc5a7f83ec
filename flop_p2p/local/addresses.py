"""New addresses for a local federation that goes on: other programs may have taken its ports meanwhile."""

from collections.abc import Sequence
from pathlib import Path

from flop_p2p.config import load_federation, read_toml
from flop_p2p.identity.files import adopted_revisions, write_federation
from flop_p2p.local.prepare import FEDERATION, LOOPBACK, LocalSite, free_ports, write_toml


def renew_addresses(sites: Sequence[LocalSite], directory: Path) -> None:
    """Give every site free ports, in `federation.toml` and in its `site.toml`; addresses are no part of the id.

    Nothing is changed once a site has adopted a revision: that brings addresses of its own.

    Raises:
        ConfigError: a file cannot be read.
        RunError: a file cannot be written.
    """
    if any(adopted_revisions(site.state) for site in sites):
        return
    federation = load_federation(directory / FEDERATION)
    ports = iter(free_ports(2 * len(federation.members)))
    members = []
    for member in federation.members:
        fresh = {key: f"tcp://{LOOPBACK}:{next(ports)}" for key in ("control", "bulk")}
        given = {key: address for key, address in fresh.items() if getattr(member, key) is not None}
        members.append(member.model_copy(update=given))
    renewed = federation.model_copy(update={"members": tuple(members)})
    for site in sites:
        member, values = renewed.member(site.name), read_toml(site.settings)
        for key, address in (("listen", member.control), ("bulk_listen", member.bulk)):
            if key in values and address is not None:
                values[key] = address
        write_toml(site.settings, values)
    write_federation(directory / FEDERATION, renewed, replace=True)

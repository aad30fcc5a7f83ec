"""Which federation holds in which round: the file that the site started with and the revisions adopted since."""

from collections.abc import Sequence

from flop_p2p.config import FederationSettings, Member, SiteSettings, load_federation
from flop_p2p.errors import FederationError, FlopError
from flop_p2p.gossip.plan import Plan, RevisedPlan, build_plan
from flop_p2p.identity.files import ADOPTED, adopted_revisions
from flop_p2p.identity.keys import Keys
from flop_p2p.identity.members import check_federation, own_member
from flop_p2p.identity.revisions import chain
from flop_p2p.transport.base import Peer


class Membership:
    """The federation as one site sees it, over all rounds.

    Raises:
        ConfigError: a file cannot be read.
        FederationError: a file is not a federation that can run, or a revision does not follow the one before.
    """

    def __init__(self, site: SiteSettings) -> None:
        self._site = site
        self._adopted = self._folder_state()
        self._read()

    def _folder_state(self) -> list[str]:
        """What tells whether another revision was adopted."""
        return sorted(path.name for path in (self._site.state / ADOPTED).glob("*.toml"))

    def _read(self) -> None:
        """Read all revisions, and build the plan of each that this site is a member of once."""
        site = self._site
        base = load_federation(site.federation)
        check_federation(base)
        if site.name not in base.names:
            raise FederationError(
                f"{site.federation}: has no member {site.name!r}; its members are {', '.join(base.names)}"
            )
        self.revisions = chain(base, adopted_revisions(site.state))
        self._own = [each for each in self.revisions if site.name in each.names]
        self._plans = [build_plan(each, site.name) for each in self._own]

    def refresh(self) -> bool:
        """Read revisions adopted since the last call; True if there is a new one."""
        before, self._adopted = self._adopted, self._folder_state()
        if self._adopted == before:
            return False
        self._read()
        return True

    @property
    def first_round(self) -> int:
        """The round in which this site may take part: 0, or the first of the revision that it joined with."""
        return self.revisions[0].from_round

    def at(self, round_index: int) -> FederationSettings:
        """The revision that holds in a round."""
        holding = [revision for revision in self.revisions if revision.from_round <= round_index]
        return holding[-1] if holding else self.revisions[0]

    def own(self, round_index: int) -> FederationSettings:
        """The revision that holds in a round or, once this site has left, the last one that it was a member of."""
        return next((each for each in reversed(self._own) if each.from_round <= round_index), self._own[0])

    def signing_keys(self, name: str, round_index: int) -> tuple[bytes, ...]:
        """The public keys that a member may sign with in a round, 32 bytes each: while one is rotated, both."""
        current = self.own(round_index)
        held = [each for each in self.revisions if each.from_round >= current.from_round and name in each.names]
        return tuple(dict.fromkeys(bytes.fromhex(each.member(name).signing_key) for each in held))

    def entry(self) -> Member:
        """This site's newest entry, addresses and all."""
        return self._own[-1].member(self._site.name)

    def plan(self) -> Plan:
        """Who exchanges with whom in every round, all revisions considered."""
        begins = [0, *(each.from_round for each in self._own[1:])]
        return RevisedPlan(list(zip(begins, self._plans, strict=True)))

    def leaves_at(self) -> int | None:
        """The round from which this site is no longer a member; None if it stays."""
        return next((each.from_round for each in self.revisions if each not in self._own), None)

    def accepts(self, federation_id: str, round_index: int) -> bool:
        """Whether a neighbour in ``round_index`` may hold the federation of this id.

        Any revision of the chain will do before the next one holds; so does the one before the first we know.
        """
        if federation_id == self.revisions[0].previous:
            return round_index < self.revisions[0].from_round
        ids = [revision.id for revision in self.revisions]
        if federation_id not in ids:
            return False
        following = self.revisions[ids.index(federation_id) + 1 :]
        return not any(revision.from_round <= round_index for revision in following)

    def peers(self, round_index: int) -> list[Peer]:
        """The neighbours from ``round_index`` on, those of revisions yet to come included."""
        current = self.at(round_index)
        coming = [
            (each, plan)
            for each, plan in zip(self._own, self._plans, strict=True)
            if each.from_round >= current.from_round
        ]
        names = sorted({name for each, plan in coming for name in plan.neighbours(each.from_round)})
        return [self._peer(name, [each.member(name) for each, _ in coming if name in each.names]) for name in names]

    def _peer(self, name: str, entries: Sequence[Member]) -> Peer:
        """One neighbour: the address of its newest entry, and every key that it may show."""
        newest = entries[-1]
        override = self._site.addresses.get(name)
        control = (override and override.control) or newest.control
        bulk = (override and override.bulk) or newest.bulk
        reachable = self.entry().control is not None
        dials = control is not None and (not reachable or self._site.name < name)
        keys = tuple(dict.fromkeys(entry.curve_key for entry in entries))
        return Peer(name, keys, control, bulk, dials)


def check_own_key(membership: Membership, keys: Keys, name: str) -> None:
    """Check that ``keys`` are this member's in some revision: during a rotation the old or the new ones.

    Raises:
        IdentityError: they are not.
    """
    failures = []
    for revision in reversed(membership.revisions):
        try:
            own_member(revision, keys, name)
        except FlopError as error:
            failures.append(error)
        else:
            return
    raise failures[0]

"""`flop-p2p keygen` and `flop-p2p federation`, from the keys of four hospitals to the fifth one's adoption."""

import re
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from flop_p2p import cli
from flop_p2p.cli.federation import FEDERATION_FLAGS
from flop_p2p.cli.options import GOSSIP_FLAGS, SHARED_FLAGS
from flop_p2p.config import FederationSettings, load_federation, read_toml
from flop_p2p.identity.files import adopted_revisions
from flop_p2p.identity.keys import generate, load_public

Run = Callable[..., tuple[int, str, str]]

SITES = ("east", "north", "south", "west")
SAMPLES = ("--task", "multiclass", "--classes", "a,b,c", "--shape", "1,8,8")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `flop-p2p ...` in an empty folder; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run_command(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flop-p2p", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        for path in Path().rglob("*.secret"):
            assert path.read_text().strip() not in printed.out + printed.err, "a secret was told"
        return int(caught.value.code or 0), printed.out, printed.err

    return run_command


@pytest.fixture
def done(run: Run) -> Callable[..., str]:
    """Run a command that must succeed without a word on standard error; returns its output."""

    def run_well(*arguments: str | Path) -> str:
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        return out

    return run_well


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command that must fail with this exit code and one line; returns it."""

    def run_badly(exit_code: int, *arguments: str | Path) -> str:
        code, _, err = run(*arguments)
        assert code == exit_code, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return run_badly


@pytest.fixture
def keys(run: Run) -> Path:
    """A folder with the keys of four hospitals and of a fifth, in folders of their names."""
    for name in (*SITES, "fifth"):
        generate(Path("keys") / name, name)
    return Path("keys")


def at(name: str, folder: str | None = None) -> str:
    """A hospital with addresses, as it is written on the command line."""
    return f"keys/{folder or name}/public.toml@tcp://{name}.example:5700,tcp://{name}.example:5701"


MEMBERS = [part for name in SITES for part in ("--member", at(name))]


@pytest.fixture
def file(keys: Path, done: Callable[..., str]) -> Path:
    done("federation", "init", "federation.toml", "--name", "retina", *SAMPLES, *MEMBERS)
    return Path("federation.toml")


# Keys


def test_keygen_tells_what_to_do_with_the_keys(done: Callable[..., str], refused: Callable[..., str]) -> None:
    out = done("keygen", "keys", "--name", "Hospital North")
    assert load_public(Path("keys/public.toml")).fingerprint in out
    assert "keys/public.toml" in out
    assert stat.S_IMODE(Path("keys").stat().st_mode) == 0o700
    before = {path: path.read_bytes() for path in Path("keys").iterdir()}
    assert "never overwritten" in refused(10, "keygen", "keys", "--name", "Hospital North")
    assert {path: path.read_bytes() for path in Path("keys").iterdir()} == before
    assert "keys of Hospital North: " in done("federation", "fingerprint", "keys")


# The common file


def test_init_writes_what_was_asked(done: Callable[..., str], keys: Path) -> None:
    out = done(
        *("federation", "init", "federation.toml", "--name", "retina", *SAMPLES, *MEMBERS[:6], "--member"),
        *("keys/west/public.toml", "--mean", "0.5", "--std", "0.25", "--model", "small-cnn", "--private", "head.*"),
        *("--batch-norm", "private", "--topology", "full", "--rounds", "7", "--lr", "0.1", "--seed", "3"),
        *("--method", "p2p-flop-alt", "--deadline", "9", "--staleness", "2", "--isolated", "wait"),
        *("--weighting", "samples", *(part for name in SITES for part in ("--samples", f"{name}=40"))),
    )
    settings = load_federation(Path("federation.toml"))
    assert settings.names == SITES
    assert settings.samples.shape == (1, 8, 8)
    assert settings.samples.std == (0.25,)
    assert (settings.model.name, settings.model.private) == ("small-cnn", ("head.*",))
    assert (settings.topology.name, settings.training.rounds, settings.training.lr) == ("full", 7, 0.1)
    assert (settings.method, settings.seed) == ("p2p-flop-alt", 3)
    assert (settings.gossip.deadline, settings.gossip.staleness, settings.gossip.isolated) == (9, 2, "wait")
    north, west = settings.member("north"), settings.member("west")
    assert (north.control, north.bulk, north.samples) == ("tcp://north.example:5700", "tcp://north.example:5701", 40)
    assert (west.control, west.bulk) == (None, None)
    assert west.curve_key == load_public(keys / "west" / "public.toml").curve_key
    assert "only dial out: west" in out
    assert "FAILED" not in out


def test_the_file_is_complete(file: Path) -> None:
    values = read_toml(file)
    for section in ("gossip", "training"):
        fields = FederationSettings.model_fields[section].default.model_dump(exclude_none=True)
        assert values[section].keys() == fields.keys()
    assert "\nprevious" not in file.read_text()


def test_samples_come_from_a_file_and_flags_go_over_it(done: Callable[..., str], keys: Path) -> None:
    samples = {
        "task": "binary",
        "class_names": ["no, never", "yes"],
        "shape": [3, 8, 8],
        "mean": [0.1] * 3,
        "std": [1.0] * 3,
    }
    Path("samples.toml").write_text(tomli_w.dumps({"samples": samples}))
    done(
        "federation",
        "init",
        "federation.toml",
        "--from",
        "samples.toml",
        "--shape",
        "3,9,9",
        "--name",
        "retina",
        *MEMBERS,
    )
    settings = load_federation(Path("federation.toml")).samples
    assert settings.class_names == ("no, never", "yes")
    assert settings.shape == (3, 9, 9)
    assert settings.mean == (0.1, 0.1, 0.1)


def test_a_topology_file_is_put_in(done: Callable[..., str], keys: Path) -> None:
    Path("nets").mkdir()
    Path("nets/chain.toml").write_text(
        f'sites = {list(SITES)}\nedges = [["east", "north"], ["north", "south"], ["south", "west"]]\n'
    )
    done("federation", "init", "federation.toml", "--name", "x", *SAMPLES, *MEMBERS, "--topology", "nets/chain.toml")
    Path("nets/chain.toml").unlink()
    settings = load_federation(Path("federation.toml"))
    assert settings.topology.name == "chain.toml"
    assert settings.graph is not None
    assert [edge[:2] for edge in settings.graph.edges] == [("east", "north"), ("north", "south"), ("south", "west")]
    out = done("federation", "show", "federation.toml")
    assert re.search(r"east .*5701 +north *\n", out)
    done("federation", "check", "federation.toml")


def test_a_server_and_one_port(done: Callable[..., str], keys: Path) -> None:
    members = [part for name in ("east", "north") for part in ("--member", f"keys/{name}/public.toml")]
    server = ("--server", "keys/west/public.toml@tcp://[fe80::1]:5700")
    done(
        "federation",
        "init",
        "f.toml",
        "--name",
        "x",
        *SAMPLES,
        *members,
        *server,
        "--method",
        "flop",
        "--bulk",
        "curve",
    )
    west = load_federation(Path("f.toml")).member("west")
    assert (west.role, west.control, west.bulk) == ("server", "tcp://[fe80::1]:5700", None)


INIT = ("federation", "init", "new.toml", "--name", "retina")
WRONG_INITS = {
    "one member": (3, (*SAMPLES, *MEMBERS[:2]), "two members or more, got 1"),
    "no samples": (3, MEMBERS, "samples.task: Field required"),
    "two classes of one name": (3, (*SAMPLES, *MEMBERS, "--classes", "a,b,a"), "class 'a' is named twice"),
    "a port": (3, (*SAMPLES, *MEMBERS, "--member", "keys/fifth/public.toml@tcp://fifth"), "control: "),
    "no keys": (10, (*SAMPLES, *MEMBERS, "--member", "keys/sixth/public.toml"), "keys/sixth/public.toml: cannot read"),
    "one member twice": (3, (*SAMPLES, *MEMBERS, *MEMBERS[:2]), "'east' and 'east'"),
    "two ports of one kind": (11, (*SAMPLES, *MEMBERS[:2], "--member", at("north").split(",")[0]), "none for bodies"),
    "dialling neighbours": (
        11,
        (*SAMPLES, "--member", "keys/east/public.toml", "--member", "keys/west/public.toml"),
        "'east' and 'west' are neighbours and both only dial out",
    ),
    "counts of nobody": (3, (*SAMPLES, *MEMBERS, "--samples", "eats=5"), "--samples 'eats=5': write NAME=NUMBER"),
    "no count": (3, (*SAMPLES, *MEMBERS, "--samples", "east=many"), "write NAME=NUMBER"),
    "counts of some": (
        11,
        (*SAMPLES, *MEMBERS, "--weighting", "samples", "--samples", "east=5"),
        "needs the number of training samples of 'north'",
    ),
    "no such topology": (11, (*SAMPLES, *MEMBERS, "--topology", "rnig"), "did you mean 'ring'?"),
    "no such file": (3, (*SAMPLES, *MEMBERS, "--topology", "net.toml"), "net.toml: cannot read this file"),
    "no such flag": (2, (*SAMPLES, *MEMBERS, "--early-stopping", "3"), "No such option"),
}


@pytest.mark.parametrize(("exit_code", "arguments", "text"), WRONG_INITS.values(), ids=WRONG_INITS)
def test_what_cannot_become_a_federation(
    refused: Callable[..., str], keys: Path, exit_code: int, arguments: tuple[str, ...], text: str
) -> None:
    assert text in refused(exit_code, *INIT, *arguments)
    assert not Path("new.toml").exists()


def test_init_overwrites_nothing(file: Path, refused: Callable[..., str]) -> None:
    before = file.read_bytes()
    assert "exists already" in refused(11, "federation", "init", file, "--name", "other", *SAMPLES, *MEMBERS)
    assert file.read_bytes() == before


def test_flags_are_those_of_simulate(file: Path) -> None:
    """No flag of model, topology and training is forgotten, but two that only a simulation has."""
    for flag, key in SHARED_FLAGS.items():
        if key.startswith(("model.", "topology.", "training.")):
            assert (FEDERATION_FLAGS.get(flag) == key) != (flag in ("--early-stopping", "--participation"))
    assert GOSSIP_FLAGS.items() <= FEDERATION_FLAGS.items()


def test_check_prints_a_line_a_check(file: Path, run: Run, done: Callable[..., str]) -> None:
    lines = done("federation", "check", file).splitlines()
    assert len(lines) == 10
    assert all(line.startswith("ok ") for line in lines)
    broken = file.read_text().replace('bulk = "tcp://west.example:5701"\n', "")
    Path("broken.toml").write_text(broken)
    code, out, err = run("federation", "check", "broken.toml")
    assert code == 11
    assert err == "error: broken.toml: 1 of 10 checks failed, first addresses\n"
    (failed,) = (line for line in out.splitlines() if not line.startswith("ok "))
    assert re.match(r"FAILED addresses +'west' has an address for messages and none for bodies", failed)


def test_check_refuses_what_is_no_federation(file: Path, refused: Callable[..., str]) -> None:
    Path("broken.toml").write_text(file.read_text().replace("[gossip]\n", "[gossip]\ndedline = 3\n"))
    assert "gossip.dedline: unknown key; did you mean 'deadline'?" in refused(3, "federation", "check", "broken.toml")
    assert "cannot read" in refused(3, "federation", "check", "absent.toml")


def test_fingerprints_can_be_compared(file: Path, keys: Path, done: Callable[..., str]) -> None:
    first, *members = done("federation", "fingerprint", file).splitlines()
    assert re.fullmatch(r"federation retina, revision 1: ([a-z2-7]{4} ){7}[a-z2-7]{4}", first)
    own = [done("federation", "fingerprint", keys / name).strip() for name in SITES]
    assert members == own
    assert done("federation", "fingerprint", keys / "east" / "public.toml").strip() == own[0]
    moved = file.read_text().replace("west.example", "10.0.0.7")
    Path("moved.toml").write_text(moved)
    assert done("federation", "fingerprint", "moved.toml").splitlines()[0] == first
    Path("other.toml").write_text(file.read_text().replace("lr = 0.01", "lr = 0.011"))
    assert done("federation", "fingerprint", "other.toml").splitlines()[0] != first


def test_show_has_a_line_a_member_with_its_neighbours(file: Path, done: Callable[..., str]) -> None:
    out = done("federation", "show", file)
    assert "retina, revision 1: p2p-flop on a ring, 20 rounds, multiclass with 3 classes" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(SITES)}
    assert rows.keys() == set(SITES)
    assert re.search(r"tcp://north\.example:5700 +tcp://north\.example:5701 +east, south", rows["north"])


# Changes


def propose_fifth(done: Callable[..., str], *more: str) -> str:
    out = ("--from-round", "5", "--out", "next.toml", *more)
    return done("federation", "add-member", "federation.toml", at("fifth"), *out)


def sign(done: Callable[..., str], *folders: str, revision: str = "next.toml") -> str:
    out = ""
    for folder in folders:
        out = done("federation", "sign", revision, "--keys", f"keys/{folder}", "--before", "federation.toml")
    return out


def site_of(name: str) -> Path:
    """The folder of a site's own files, with its copy of the federation file."""
    folder = Path("sites") / name
    folder.mkdir(parents=True)
    (folder / "federation.toml").write_bytes(Path("federation.toml").read_bytes())
    data = {"source": "digits"}
    values = {"name": name, "keys": f"../../keys/{name}", "data": data}
    (folder / "site.toml").write_text(tomli_w.dumps(values))
    return folder


def test_a_fifth_hospital_joins(file: Path, done: Callable[..., str], refused: Callable[..., str]) -> None:
    out = propose_fifth(done)
    fingerprint = load_public(Path("keys/fifth/public.toml")).fingerprint
    assert f"member fifth is new: tcp://fifth.example:5700, fingerprint of its keys: {fingerprint}" in out
    assert "to be signed by: east, fifth, north, south, west" in out
    north = site_of("north")
    adopt = ("federation", "adopt", north / "site.toml", "next.toml")
    out = sign(done, "east", "fifth", "north", "south")
    assert "member fifth is new" in out
    assert out.endswith("signed revision 2 of retina for south\nstill to sign: west\n")
    assert "is not signed by west" in refused(11, *adopt)
    assert not (north / "state").exists()
    assert "all members signed" in sign(done, "west")
    done("federation", "check", "next.toml")
    out = done(*adopt)
    assert "north/state/revisions/2.toml" in out
    assert "it holds from round 5\n" in out
    (adopted,) = adopted_revisions(north / "state")
    assert adopted == load_federation(Path("next.toml"))
    assert adopted.from_round == 4, "counted from 0 in the file"
    assert load_federation(north / "federation.toml") == load_federation(file), "the first file stays as it is"
    assert "the one that this site holds already" in done(*adopt)


def test_revisions_are_adopted_in_their_order(
    file: Path, done: Callable[..., str], refused: Callable[..., str]
) -> None:
    propose_fifth(done)
    sign(done, "east", "fifth", "north", "south", "west")
    done("federation", "remove-member", "next.toml", "west", "--from-round", "9", "--out", "third.toml")
    for name in ("east", "fifth", "north", "south"):
        done("federation", "sign", "third.toml", "--keys", f"keys/{name}", "--before", "next.toml")
    site = site_of("south") / "site.toml"
    assert "does not follow revision 1" in refused(11, "federation", "adopt", site, "third.toml")
    done("federation", "adopt", site, "next.toml")
    assert "member west leaves" in done("federation", "adopt", site, "third.toml")
    assert [each.revision for each in adopted_revisions(site.parent / "state")] == [2, 3]
    assert "does not follow" in refused(11, "federation", "adopt", site, "next.toml")


def test_a_key_is_rotated(file: Path, done: Callable[..., str], refused: Callable[..., str]) -> None:
    done("keygen", "keys/north-2", "--name", "north")
    rotate = ("federation", "rotate-key", file, "keys/north-2/public.toml", "--from-round", "4", "--out", "next.toml")
    out = done(*rotate)
    assert "to be signed by: east, north, north with its earlier key, south, west" in out
    assert "still to sign: north with its earlier key\n" in sign(done, "east", "south", "west", "north-2")
    earlier = ("federation", "sign", "next.toml", "--keys", "keys/north")
    assert "to sign with keys that it replaces, give --before too" in refused(10, *earlier)
    assert "all members signed" in sign(done, "north")
    out = done("federation", "adopt", site_of("east") / "site.toml", "next.toml")
    assert "member north has another curve_key\nmember north has another signing_key\n" in out


def test_who_may_sign(file: Path, done: Callable[..., str], refused: Callable[..., str]) -> None:
    done("federation", "remove-member", file, "west", "--from-round", "9", "--out", "next.toml")
    command = ("federation", "sign", "next.toml", "--before", file, "--keys")
    assert "'west' is no member in revision 2, so its signature is not needed" in refused(11, *command, "keys/west")
    done("keygen", "keys/thief", "--name", "north")
    assert "these keys are not those of 'north' in revision 2" in refused(10, *command, "keys/thief")
    Path("keys/north/signing.secret").chmod(0o644)
    assert "chmod 600" in refused(10, *command, "keys/north")
    assert load_federation(Path("next.toml")).signatures == ()
    assert "still to sign: north, south\n" in done("federation", "sign", "next.toml", "--keys", "keys/east")


def test_nobody_signs_what_does_not_follow(file: Path, done: Callable[..., str], refused: Callable[..., str]) -> None:
    propose_fifth(done)
    text = Path("next.toml").read_text()
    Path("next.toml").write_text(text.replace("lr = 0.01", "lr = 0.5"))
    command = ("federation", "sign", "next.toml", "--before", file, "--keys", "keys/east")
    assert "changes more than members and topology: training.lr was 0.01 and is now 0.5" in refused(11, *command)
    Path("next.toml").write_text(text.replace("rounds = 20", "rounds = 4"))
    assert "rounds" in refused(11, *command)


def test_what_is_signed_is_shown_and_checked_without_the_file_before_too(
    file: Path, done: Callable[..., str], refused: Callable[..., str]
) -> None:
    propose_fifth(done)
    command = ("federation", "sign", "next.toml", "--keys", "keys/east")
    assert "revision 2 of retina, from round 5: east, fifth, north, south, west\n" in done(*command)
    Path("next.toml").write_text(Path("next.toml").read_text().replace("rounds = 20", "rounds = 4"))
    assert "there are 4 rounds" in refused(11, *command)
    assert "revision 1 is not signed" in refused(11, "federation", "sign", file, "--keys", "keys/east")


def test_addresses_that_somebody_changed_on_the_way_are_shown(
    file: Path, done: Callable[..., str], refused: Callable[..., str]
) -> None:
    propose_fifth(done)
    sign(done, "east", "fifth", "north", "south", "west")
    text = Path("next.toml").read_text()
    adopt = ("federation", "adopt", site_of("north") / "site.toml", "next.toml")
    silent = re.sub(r'(control|bulk) = "tcp://(east|north|south)\.example:\d+"\n', "", text)
    Path("next.toml").write_text(silent)
    assert "neighbours and both only dial out" in refused(11, *adopt)
    Path("next.toml").write_text(text.replace("tcp://west.example:5700", "tcp://thief.example:1"))
    shown = (
        "west has another control address, which nobody signs: tcp://west.example:5700 becomes tcp://thief.example:1"
    )
    assert shown in done(*adopt)


def test_before_the_first_run_a_member_is_added_in_place(
    file: Path, done: Callable[..., str], refused: Callable[..., str]
) -> None:
    before = load_federation(file)
    command = ("federation", "add-member", file, at("fifth"))
    done(*command, "--in-place", "--topology", "full")
    after = load_federation(file)
    assert (after.revision, after.names, after.topology.name) == (1, ("east", "fifth", *SITES[1:]), "full")
    assert after.id != before.id
    for wrong in ((), ("--from-round", "3"), ("--out", "next.toml"), ("--in-place", "--from-round", "3")):
        assert "give --from-round and --out" in refused(2, *command, *wrong)
    assert "has a member 'fifth' already" in refused(11, *command, "--in-place")


def test_proposals_overwrite_nothing_and_are_checked(
    file: Path, done: Callable[..., str], refused: Callable[..., str]
) -> None:
    propose_fifth(done)
    before = Path("next.toml").read_bytes()
    command = ("federation", "remove-member", file, "west", "--from-round")
    assert "exists already" in refused(11, *command, "3", "--out", "next.toml")
    assert Path("next.toml").read_bytes() == before
    assert "there are 20 rounds" in refused(11, *command, "21", "--out", "other.toml")
    assert "Invalid value for '--from-round'" in refused(2, *command, "1", "--out", "other.toml")
    lonely = ("federation", "add-member", file, "keys/fifth/public.toml", "--from-round", "3", "--out", "other.toml")
    done(*lonely)
    assert "does not exist for 5 sites" in refused(11, *lonely[:-1], "third.toml", "--topology", "hypercube")


# The page about it


PAGE = Path(__file__).parents[2] / "docs" / "federation.md"
FINGERPRINT = re.compile(r"\b([a-z2-7]{4} ){7}[a-z2-7]{4}\b")


def lines_of(text: str) -> set[str]:
    """Lines without what differs from run to run and from width to width."""
    return {" ".join(FINGERPRINT.sub("(fingerprint)", line).replace("─", "").split()) for line in text.splitlines()}


def test_the_procedures_of_the_page_run_and_print_what_it_says(done: Callable[..., str]) -> None:
    """Every command of the page in its order, but those of a running node, and every line of output that it shows."""
    printed, told, ran = "", set(), 0
    for block in re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S):
        commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
        if not block.startswith(("flop-p2p", "cp ")):
            told |= lines_of(block)
            continue
        for program, *arguments in commands:
            if program == "cp":
                Path(arguments[1]).write_bytes(Path(arguments[0]).read_bytes())
            elif arguments[0] in ("keygen", "federation"):
                printed += done(*arguments)
                ran += 1
            if arguments[:2] == ["federation", "init"]:
                for name in SITES:
                    (Path(name) / "federation.toml").write_bytes(Path("federation.toml").read_bytes())
                    (Path(name) / "site.toml").write_text(f'name = "{name}"\n[data]\nsource = "digits"\n')
    assert ran > 30
    assert told - lines_of(printed) == set()
    assert [each.revision for each in adopted_revisions(Path("north/state"))] == [2, 3, 4]
    assert load_federation(Path("revision-4.toml")).names == ("east", "fifth", "north", "south")

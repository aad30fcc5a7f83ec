"""Keys of a site: kept for their owner only, never overwritten, never told to anybody."""

import logging
import os
import pickle
import stat
from pathlib import Path

import pytest
import zmq

from flop_p2p.errors import ConfigError, IdentityError
from flop_p2p.identity.keys import generate, grouped, load_keys, load_public

FILES = ("curve.secret", "public.toml", "signing.secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generate(tmp_path / "keys", "Hospital North")
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secrets_of(folder: Path) -> list[str]:
    return [(folder / name).read_text().strip() for name in ("curve.secret", "signing.secret")]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_secret_files_are_for_their_owner_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        generate(tmp_path / "keys", "north")
    finally:
        os.umask(before)
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == sorted(FILES)
    assert mode(tmp_path / "keys") == 0o700
    assert mode(tmp_path / "keys" / "curve.secret") == mode(tmp_path / "keys" / "signing.secret") == 0o600
    assert mode(tmp_path / "keys" / "public.toml") == 0o644 & ~umask


def test_secret_files_are_never_open_to_others_for_an_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created: dict[str, tuple[int, int]] = {}
    opening = os.open

    def watched(path: Path, flags: int, permissions: int = 0o777) -> int:
        descriptor = opening(path, flags, permissions)
        created[Path(path).name] = (flags, stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        generate(tmp_path / "keys", "north")
    finally:
        os.umask(before)
    assert created["curve.secret"][1] == created["signing.secret"][1] == 0o600
    assert all(flags & os.O_EXCL for flags, _ in created.values())


def test_keys_come_back_and_belong_together(folder: Path) -> None:
    keys = load_keys(folder)
    assert keys.public == load_public(folder / "public.toml")
    assert keys.name == "Hospital North"
    assert zmq.curve_public(keys.curve_secret) == keys.curve_public
    keys.signing.public_key().verify(keys.signing.sign(b"text"), b"text")


def test_no_two_sites_get_the_same_keys(tmp_path: Path) -> None:
    one, other = (generate(tmp_path / name, "same name") for name in ("one", "other"))
    assert one.curve_key != other.curve_key
    assert one.signing_key != other.signing_key
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_overwritten(folder: Path, file: str) -> None:
    content = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES:
        if name != file:
            (folder / name).unlink()
    with pytest.raises(IdentityError, match=rf"{file}: exists already, and keys are never overwritten"):
        generate(folder, "other")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {file: content[file]}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="exists already"):
        generate(tmp_path / "keys", "north")
    assert not (tmp_path / "elsewhere").exists()


def test_a_failure_leaves_no_keys_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(IdentityError, match="cannot be written \\(No space left on device\\)"):
        generate(tmp_path / "keys", "north")
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_name_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keys: name: "):
        generate(tmp_path / "keys", "two\nlines")
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("file", ["curve.secret", "signing.secret"])
@pytest.mark.parametrize("wide", [0o640, 0o604, 0o660, 0o620, 0o601, 0o777])
def test_secrets_that_others_may_use_are_refused(folder: Path, file: str, wide: int) -> None:
    (folder / file).chmod(wide)
    with pytest.raises(IdentityError) as error:
        load_keys(folder)
    assert error.value.exit_code == 10
    assert f"(mode {wide:04o}); run: chmod 600 " in str(error.value)
    (folder / file).chmod(0o400)
    load_keys(folder)


@pytest.mark.parametrize("wide", [0o720, 0o702, 0o777])
def test_a_folder_that_others_may_write_is_refused(folder: Path, wide: int) -> None:
    folder.chmod(wide)
    with pytest.raises(IdentityError, match=rf"\(mode {wide:04o}\); run: chmod go-w .*keys"):
        load_keys(folder)
    folder.chmod(0o755)
    load_keys(folder)


def test_the_command_that_mends_it_is_quoted(tmp_path: Path) -> None:
    generate(tmp_path / "our keys", "north")
    (tmp_path / "our keys" / "curve.secret").chmod(0o644)
    with pytest.raises(IdentityError, match=r"chmod 600 '.*/our keys/curve.secret'"):
        load_keys(tmp_path / "our keys")


@pytest.mark.parametrize("file", FILES)
def test_an_absent_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(IdentityError, match=f"{file}: cannot read this .*No such file"):
        load_keys(folder)


MALFORMED = [
    b"",
    b"short",
    b"~" * 40,
    b"#" * 39,
    b"#" * 41,
    b"zz" * 32,
    b"\xff" * 64,
    b"\x00" * 40,
    b"0" * 63,
    b"0" * 65,
]


@pytest.mark.parametrize("file", ["curve.secret", "signing.secret"])
@pytest.mark.parametrize("content", MALFORMED)
def test_a_malformed_secret_is_named_and_not_shown(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(IdentityError, match=f"{file}: holds no (CURVE|Ed25519) key") as error:
        load_keys(folder)
    assert not content or content.decode("latin-1") not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "text", ["", "name = 3", "not toml", 'name = "x"\ncurve_key = "y"\nsigning_key = "z"', "secret = 1"]
)
def test_a_malformed_public_file_is_refused(folder: Path, text: str) -> None:
    (folder / "public.toml").write_text(text)
    with pytest.raises(IdentityError, match=r"public\.toml: "):
        load_keys(folder)


@pytest.mark.parametrize("file", FILES)
def test_files_of_another_site_are_refused(folder: Path, tmp_path: Path, file: str) -> None:
    generate(tmp_path / "other", "Hospital North")
    (tmp_path / "other" / file).replace(folder / file)
    with pytest.raises(IdentityError, match=r"public.toml: does not belong to the secret keys beside it"):
        load_keys(folder)


def test_secrets_are_in_no_text(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys, secrets = load_keys(folder), secrets_of(folder)
    told = [repr(keys), str(keys), f"{keys.public!r}", keys.public.fingerprint, (folder / "public.toml").read_text()]
    (folder / "public.toml").write_text((folder / "public.toml").read_text().replace("North", "South") + "extra = 1\n")
    with pytest.raises(IdentityError) as error:
        load_keys(folder)
    told += [str(error.value), repr(error.value), caplog.text]
    for secret in secrets:
        assert len(secret) >= 40
        assert not any(secret in text for text in told)
    with pytest.raises(TypeError):
        pickle.dumps(keys)


def test_fingerprints_are_short_groups_and_change_with_every_part(folder: Path) -> None:
    public = load_public(folder / "public.toml")
    groups = public.fingerprint.split()
    assert [len(group) for group in groups] == [4] * 8
    assert set("".join(groups)) <= set("abcdefghijklmnopqrstuvwxyz234567")
    others = [
        public.model_copy(update=change).fingerprint
        for change in ({"name": "North"}, {"curve_key": "a" * 40}, {"signing_key": "0" * 64})
    ]
    assert len({public.fingerprint, *others}) == 4


def test_a_fingerprint_is_the_hash_itself() -> None:
    assert grouped(bytes(20)) == " ".join(["aaaa"] * 8)
    assert grouped(bytes(19) + b"\x01" + bytes(12)) == " ".join([*["aaaa"] * 7, "aaab"])

"""Files of federations on disk: whole or not at all, never over another one, and for their owner."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flop_p2p.config import FederationSettings, load_federation
from flop_p2p.errors import FederationError
from flop_p2p.identity.files import adopted_revisions, store_revision, write_federation

MakeFederation = Callable[..., FederationSettings]


@pytest.mark.parametrize("replace", [False, True])
def test_a_full_disk_leaves_nothing_new(
    tmp_path: Path, federation: MakeFederation, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "federation.toml"
    if replace:
        path.write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FederationError, match=r"federation\.toml: cannot be written \(No space left"):
        write_federation(path, federation(), replace)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"] * replace


def without_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_never_put_over_another(
    tmp_path: Path, federation: MakeFederation, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    path = tmp_path / "federation.toml"
    write_federation(path, federation())
    with pytest.raises(FederationError, match="exists already"):
        write_federation(path, federation(name="other"))
    assert load_federation(path) == federation()
    write_federation(path, federation(name="other"), replace=True)
    assert load_federation(path).name == "other"
    assert list(tmp_path.iterdir()) == [path]


def test_no_link_is_followed(tmp_path: Path, federation: MakeFederation) -> None:
    (tmp_path / "precious").write_text("mine")
    for name in ("federation.toml", ".federation.toml.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    write_federation(tmp_path / "federation.toml", federation(), replace=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_a_site_adopted_is_for_its_owner(tmp_path: Path, federation: MakeFederation) -> None:
    before = os.umask(0)
    try:
        store_revision(tmp_path / "state", federation())
    finally:
        os.umask(before)
    assert [each.revision for each in adopted_revisions(tmp_path / "state")] == [1]
    for folder in (tmp_path / "state", tmp_path / "state" / "revisions"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

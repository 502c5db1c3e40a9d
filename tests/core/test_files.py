"""Files of ours: whole or not at all, never through a link, and what a disk refuses is one sentence."""

import errno
import os
from pathlib import Path

import pytest

from napari_unet import files
from napari_unet.errors import OutputError, ResourceError, UnsafeError, UsageError

posix = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes of POSIX")


def test_a_file_is_the_old_one_until_it_is_the_whole_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.replace(path, b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    files.replace(path, b"new")
    assert path.read_bytes() == b"new"


def test_names_as_long_as_the_disk_allows_can_be_written_and_longer_ones_are_said(tmp_path: Path) -> None:
    files.replace(tmp_path / ("n" * 255), b"x")
    with pytest.raises(UsageError, match="256 letters"), files.disk(tmp_path):
        files.replace(tmp_path / ("n" * 256), b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["n" * 255]


@posix
def test_a_path_that_is_too_long_is_not_taken_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the path .* has \d{4} letters, more than the system"), files.disk(tmp_path):
        files.replace(tmp_path / ("folder/" * 900) / "file", b"x")
    with pytest.raises(UsageError, match=r"the name n+\.\.\. has 200 letters"), files.disk(tmp_path):
        raise OSError(errno.ENAMETOOLONG, "x", str(tmp_path / ("n" * 200)))  # of a disk that takes 143 bytes


@posix
@pytest.mark.parametrize("name", ["file", "file.tmp", "file.partial", ".file.tmp"])
def test_what_a_link_points_to_is_never_written(tmp_path: Path, name: str) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("five years")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    files.replace(folder / "file", b"mine")
    assert (folder / "file").read_bytes() == b"mine"
    assert victim.read_text() == "five years"


@posix
@pytest.mark.parametrize("opened", [files.open_to_read, files.open_to_append])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "device"])
def test_links_pipes_and_devices_are_not_opened(tmp_path: Path, kind: str, opened: object) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/full")
    else:
        (tmp_path / "victim").write_text("five years" * (kind == "link"))
        path.symlink_to(tmp_path / ("victim" if kind == "link" else "nothing"))
    with pytest.raises((UnsafeError, OSError)):
        opened(path)  # type: ignore[operator]
    assert not (tmp_path / "nothing").exists()


@posix
def test_a_link_however_deep_is_named(tmp_path: Path) -> None:
    files.refuse_links(tmp_path)
    (tmp_path / "a/b/c").mkdir(parents=True)
    files.refuse_links(tmp_path)
    (tmp_path / "a/b/c/d").symlink_to(tmp_path)
    with pytest.raises(UnsafeError, match=r"a/b/c/d is a symbolic link"):
        files.refuse_links(tmp_path)


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    kept = ["a.partial", "mine.0123.partial", "0", "x.tmp"]
    for name in [*kept, f".{'0a' * 16}.partial", f"zarr.json.{'f1' * 16}.partial"]:
        (tmp_path / name).write_text("")
    files.remove_leftovers([tmp_path])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_a_file_longer_than_ours_can_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    assert files.read(path, 11) == b"x" * 11
    with pytest.raises(OutputError, match="more than 10 bytes"):
        files.read(path, 10)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, ResourceError),
        (errno.EROFS, ResourceError),
        (errno.ENAMETOOLONG, UsageError),
        (errno.EISDIR, OutputError),
        (errno.ENOENT, OutputError),
        (errno.EIO, None),
    ],
)
def test_what_a_disk_refuses_is_an_error_of_ours(tmp_path: Path, number: int, kind: type | None) -> None:
    with pytest.raises(kind or OSError), files.disk(tmp_path / "not/there/yet"):
        raise OSError(number, os.strerror(number))

"""What a window keeps of a failure is a file of its own, that nobody else reads."""

import stat
import sys

import pytest

from napari_unet.widgets.jobs import log


@pytest.mark.skipif(sys.platform == "win32", reason="files of Windows have no such mode")
def test_details_of_a_failure_are_for_their_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = log("https://me:secret@host/a"), log("again")
    assert one != other
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert "secret" not in one.read_text("utf-8")

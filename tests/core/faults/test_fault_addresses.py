"""Addresses: opened as they are given, kept and shown without user, password and query, never taken for paths."""

import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers import FAST, call, tree
from kinds import small
from napari_unet import PredictConfig, open_stack
from napari_unet.errors import DataError, UnetError
from napari_unet.events import wait
from napari_unet.inference.predict import predict
from napari_unet.store.save import save_stack
from napari_unet.text import escaped, without_secrets
from rig import store_image


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder that is served, and its host and port."""
    (tmp_path / "served").mkdir()
    handler = lambda *args: Quiet(*args, directory=str(tmp_path / "served"))  # noqa: E731
    found = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield tmp_path / "served", f"127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:secret@host/a.zarr", "https://host/a.zarr"),
        ("s3://key:secret@bucket/a@b/c", "s3://bucket/a@b/c"),
        ("no https://me@host:80/a and tls://a:secret@b:1 there", "no https://host:80/a and tls://b:1 there"),
        ("https://host/a.zarr?X-Amz-Signature=secret#here", "https://host/a.zarr?...#here"),
        ("https://u:se@cret@host/x", "https://host/x"),
        ("mail me@host, or C:/a@b/c.tif", "mail me@host, or C:/a@b/c.tif"),
        ("'http://u:secret@h/x' cannot be reached; what?", "'http://h/x' cannot be reached; what?"),
    ],
)
def test_user_password_and_query_of_addresses_are_taken_out_of_a_text(text, kept):
    assert without_secrets(text) == kept == str(UnetError(text))
    assert "secret" not in escaped(text)


def test_nothing_that_is_written_or_said_of_an_address_holds_its_password(server, tmp_path):
    folder, host = server
    image = store_image(folder / "image.zarr")
    address = f"http://me:secret@{host}/image.zarr"
    stack = open_stack(address)
    assert stack.source == f"http://{host}/image.zarr"
    wait(predict(stack, small(), tmp_path / "r.ome.zarr", PredictConfig(precision="fp32", device="cpu")))
    wait(save_stack(stack, tmp_path / "copy.ome.zarr"))
    small().save(tmp_path / "m.model")
    out = tmp_path / "shell.ome.zarr"
    code, said = call("predict", address, "--model", tmp_path / "m.model", "--out", out, *FAST)
    assert (code, "secret" in said) == (0, False), said
    code, said = call("info", address)
    assert (code, "secret" in said) == (0, False), said
    with pytest.raises(DataError) as error:
        open_stack(f"http://me:secret@{host}/other.zarr")
    assert "secret" not in str(error.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and image not in path.parents]
    assert files
    assert not [path for path in files if b"secret" in path.read_bytes()]


def test_a_command_opens_an_address_as_it_is_given(server, tmp_path):
    folder, host = server
    store_image(folder / "image.zarr")
    small().save(tmp_path / "m.model")
    options = ("--model", tmp_path / "m.model", *FAST, "--out")
    assert call("predict", f"http://{host}/image.zarr", *options, tmp_path / "far.ome.zarr")[0] == 0
    assert call("predict", folder / "image.zarr", *options, tmp_path / "near.ome.zarr")[0] == 0
    assert tree(tmp_path / "far.ome.zarr").keys() == tree(tmp_path / "near.ome.zarr").keys()
    assert call("evaluate", f"http://{host}/image.zarr", folder / "image.zarr", "--kind", "intensity")[0] == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("predict IMAGE --model MODEL --out https://me:secret@host/r.ome.zarr", 2),
        ("predict IMAGE --model https://host/m.model --out OUT", 2),
        ("predict https://me:secret@127.0.0.1:1/a.zarr --model MODEL --in-source", 7),
        ("predict ftp://host/a.zarr --model MODEL --out OUT", 2),
        ("batch ftp://host/folder --model MODEL --out OUT", 2),
        ("batch https://127.0.0.1:1/folder --model MODEL --out OUT", 7),
        ("train --images https://host/a.zarr --labels https://host/b.zarr --out OUT", 2),
        ("train --images IMAGE --labels IMAGE --out gs://bucket/m.model", 2),
        ("verify http://host/r.ome.zarr", 2),
        ("encode https://127.0.0.1:1/a.zarr --model MODEL --out OUT", 7),
        ("evaluate IMAGE IMAGE --json https://host/s.json", 2),
    ],
)
def test_an_address_is_refused_as_one_where_none_is_taken(command, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store_image(tmp_path / "IMAGE")
    small().save(tmp_path / "MODEL")
    before = sorted(tmp_path.rglob("*"))
    given, said = call(*command.split())
    assert (given, "secret" in said, ":/" in said.replace("://", "")) == (code, False, False), said
    assert "://" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_results_are_not_written_into_an_address(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, host = server
    store_image(folder / "image.zarr")
    small().save(tmp_path / "m.model")
    code, said = call("predict", f"http://{host}/image.zarr", "--model", tmp_path / "m.model", "--in-source", *FAST)
    assert code == 2
    assert "--out" in said
    assert not (tmp_path / "http:").exists()

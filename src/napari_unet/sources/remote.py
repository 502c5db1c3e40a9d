"""Addresses: how a server is reached, what of it is followed, its metadata, which is read only so far, and versions."""

import asyncio
import functools
import http
import importlib.util
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import fsspec
import fsspec.asyn

from ..errors import DataError, GoneError, UnetError, UnreachableError, UnsafeError
from ..faults import FAULTS, network_errors, passing, persist

Got = TypeVar("Got")
TAG = re.compile(r"<[^>]*>")  # of HTML
SAID = 300  # letters that are shown of what a server says
MAX_METADATA = 16 * 2**20  # 16 MiB: consolidated, that of some ten thousand arrays
LOGGED_IN = 60  # seconds after which credentials are looked for again: looking may ask a server, and people log in
# What tells one version of a file from another, in the words of servers and libraries, the surest first.
VERSION = ("etag", "content-md5", "md5hash", "last-modified", "lastmodified", "updated", "mtime")
METADATA_SECONDS = 10.0  # metadata has some kB; 16 MiB arrive in it over 14 Mbit/s
SILENT = 15.0  # seconds without a byte after which a server is taken for gone: s3fs has the same
PATIENCE = 20.0  # seconds that a server may be gone in the middle of a run: a service restarts in some ten
PAUSE = 1.0  # seconds between two tries: 20 requests of each reader while a server starts again
REQUESTS = 32  # under way at the same time: over 30 ms to a server 2.4 times as fast as 10, and no slower than 64
_gone: dict[str, tuple[float, float]] = {}  # of a server: since when it has not answered, and when it last did not


def options(url: str) -> dict[str, Any]:
    """Return what fsspec opens an address with; credentials are found by the library for each kind of address.

    Where there are none for s3, what is public is read, as the library for gs does by itself.
    """
    if url.startswith(("http://", "https://")):
        return {"get_client": _client}
    if not url.startswith("s3://"):
        return {"requests_timeout": _timeout()}
    # Tries of a library multiply with those of the library above it and with ours: `arrive` alone tries again.
    settings = {"retries": {"total_max_attempts": 1}, "max_pool_connections": REQUESTS}
    settings |= fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    public = {"anon": True} if _is_anonymous(int(time.monotonic() // LOGGED_IN)) else {}
    return {"config_kwargs": {"connect_timeout": SILENT, "read_timeout": SILENT} | settings} | public


def file_system(url: str, **more: Any) -> tuple[Any, str]:
    """Return the file system of fsspec that an address is on, which tries nothing again by itself, and the path there.

    Raises
    ------
    ImportError
        Where packages for such addresses are not installed.
    ValueError
        Where it is no address.
    """
    files, path = fsspec.core.url_to_fs(url, **more, **options(url))
    files.retries = 1  # s3fs's own word for it; gcsfs has its tries around the method that asks, half a minute of them
    untried = getattr(getattr(type(files), "_request", None), "__wrapped__", None)
    if untried is not None:
        files._request = functools.partial(untried, files)
    return files, path


def _timeout() -> Any:
    """Return how long a server may be silent; what it sends may take as long as it takes."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=SILENT, sock_read=SILENT)


@functools.lru_cache(1)
def _is_anonymous(_: int) -> bool:
    """Say whether there are no credentials for s3, in the environment, in files, or in settings of fsspec."""
    if fsspec.config.conf.get("s3") or importlib.util.find_spec("botocore") is None:
        return False
    session = importlib.import_module("botocore.session").get_session()
    try:
        return session.get_credentials() is None
    except Exception as error:
        if not isinstance(error, network_errors()):
            raise
        return False  # what is wrong with them is said when they are used


async def _client(**kwargs: Any) -> Any:
    """Return a client that is sent to no other server than the one whose address was given."""
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    return aiohttp.ClientSession(trace_configs=[trace], timeout=_timeout(), **kwargs)


async def _check_redirect(session: Any, context: Any, found: Any) -> None:
    """Refuse a redirect to another server, which may be one inside of a network that is closed to the first."""
    url = found.url
    location = found.response.headers.get("Location") or found.response.headers.get("URI") or ""
    target = url.join(type(url)(location))
    if target.host != url.host:
        raise UnsafeError(f"{url} sends to another server, {target}; refused: give that address itself")


async def arrive(where: str, read: Callable[[], Awaitable[Got]], probe: Callable[[], Awaitable[Any]]) -> Got:
    """Read a part of an image from a server, again while the server is gone, but no longer than it may be.

    What counts is how long it has answered nobody: readers that wait beside and behind each other do not each wait as
    long. Where it answers, what failed is told at once, as any other fault of one part.

    Parameters
    ----------
    probe : callable
        Asks the server for something small.

    Raises
    ------
    GoneError
        Where the server stays gone: no other part can be read either.
    """
    while True:
        began = time.monotonic()
        try:
            got = await read()
        except FAULTS + network_errors() as error:
            if _is_answer(error) or await _answers(probe):
                _gone.pop(_server(where), None)
                raise
            _note_silence(where, began, error)
        else:
            _gone.pop(_server(where), None)
            return got
        await asyncio.sleep(PAUSE)


def _server(where: str) -> str:
    return "/".join(where.split("/")[:3])


def _note_silence(where: str, began: float, error: Exception) -> None:
    """Note that a server has not answered what was asked at a time.

    Raises
    ------
    GoneError
        Where it has answered nobody for as long as it may be gone.
    """
    since, last = _gone.get(_server(where), (began, began))
    since, now = (since if began - last < PATIENCE else began), time.monotonic()
    _gone[_server(where)] = since, now
    if now - since >= PATIENCE:
        raise GoneError(
            f"{where} cannot be read: its server has not answered for {now - since:.0f} s "
            f"({_said(error)}); finished work is kept: run the same command again later"
        ) from error


def _said(error: Exception) -> str:
    """Return an error in one line: a server may answer with a page, of which the words are kept."""
    return " ".join(f"{type(error).__name__} {TAG.sub(' ', str(error))}".split())[:SAID]


def _is_answer(error: Exception) -> bool:
    return isinstance(error, PermissionError) or not passing(error)


async def _answers(probe: Callable[[], Awaitable[Any]]) -> bool:
    try:
        await probe()
    except FAULTS + network_errors() as error:
        return _is_answer(error)
    return True


def fetch(url: str) -> bytes | None:
    """Read a file of metadata as far as it may go; None where there is none.

    Raises
    ------
    DataError
        Where the server cannot be reached, or takes too long.
    GoneError
        Where the server has answered none of several tries, or of several files, for as long as it may be gone.
    UnsafeError
        Where it sends to another one.
    """
    try:
        files, path = file_system(url)
    except ImportError as error:
        missing = f"pip install 'napari-unet-stacks[remote]' ({error})"
        raise DataError(f"{url} cannot be reached: packages for such addresses are not installed; {missing}") from None
    except ValueError as error:
        raise DataError(f"{url} cannot be reached: {error}; check the address") from None
    content = _heard(url, files, path)
    if isinstance(content, FileNotFoundError):
        return None
    if type(content) is TimeoutError and content.errno is None:  # ours; nothing is gained by a second try
        raise DataError(f"{url} does not arrive whole within {METADATA_SECONDS:g} s; try again later, or copy it here")
    if isinstance(content, UnetError):
        raise content
    if isinstance(content, Exception):
        what = f"{url} cannot be reached: {_said(content)}"
        if isinstance(content, PermissionError):
            raise DataError(f"{what}; if it is not public, log in as its own tools do (aws configure, gcloud auth)")
        raise DataError(f"{what}; check the address and the connection") from content
    return bytes(content)


def _heard(url: str, files: Any, path: str) -> bytes | Exception:
    """Read a file of metadata, and note whether its server answers."""
    began, content = time.monotonic(), _first_bytes(files, path)
    if isinstance(content, Exception) and not isinstance(content, UnetError) and not _is_answer(content):
        _note_silence(url, began, content)
    else:
        _gone.pop(_server(url), None)
    return content


def _first_bytes(files: Any, path: str) -> bytes | Exception:
    """Read a remote file as far as metadata may go: a server that sends more, or never ends, is not read on."""
    if "http" in files.protocol:
        (content,) = fsspec.asyn.sync(files.loop, _attempted, files, path)
    else:
        (content,) = files.cat([path], on_error="return", start=0, end=MAX_METADATA + 1).values()
    return content


async def _attempted(files: Any, path: str) -> list[bytes | BaseException]:
    reading = asyncio.wait_for(_received(files, path), METADATA_SECONDS)
    return list(await asyncio.gather(reading, return_exceptions=True))


async def _received(files: Any, path: str) -> bytes:
    session = await files.set_session()
    async with session.get(files.encode_url(path), **files.kwargs) as reply:
        if reply.status == http.HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path)
        reply.raise_for_status()
        content = bytearray()
        while len(content) <= MAX_METADATA and (part := await reply.content.read(MAX_METADATA)):
            content += part
        return bytes(content)


def versions(where: str, keys: Sequence[str]) -> list[tuple[int, str] | None]:
    """Return the size of each file at an address and its version, as the server tells them: a checksum, or a time.

    None of a file that is not there; 0 and nothing of one that the server says nothing about.

    Raises
    ------
    UnreachableError
        Where the server cannot be reached.
    """
    files, root = file_system(where)

    async def look() -> list[tuple[int, str] | None]:
        each = (_version(files, f"{root.rstrip('/')}/{key}") for key in keys)
        return await asyncio.wait_for(asyncio.gather(*each), METADATA_SECONDS)

    try:
        return list(persist(lambda: fsspec.asyn.sync(files.loop, look)))
    except UnetError:
        raise
    except FAULTS + network_errors() as error:
        raise UnreachableError(f"{where} cannot be reached: {_said(error)}; try again later") from error


async def _version(files: Any, path: str) -> tuple[int, str] | None:
    if "http" not in files.protocol:
        try:
            return _told(await asyncio.to_thread(files.info, path))
        except FileNotFoundError:
            return None
    session = await files.set_session()
    headers = {"Accept-Encoding": "identity"}  # else the size may be that of what is packed for the way
    async with session.head(files.encode_url(path), allow_redirects=True, headers=headers, **files.kwargs) as reply:
        if reply.status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
            return None
        if reply.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            reply.raise_for_status()
        return _told({"size": reply.headers.get("Content-Length"), **reply.headers}) if reply.ok else (0, "")


def _told(about: Mapping[str, Any]) -> tuple[int, str]:
    low = {str(key).lower(): value for key, value in about.items()}
    version = next((str(low[name]) for name in VERSION if low.get(name)), "")
    return int(low.get("size") or 0), version.removeprefix("W/")

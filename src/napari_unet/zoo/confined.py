"""A process in which a program of TorchScript or torch.export becomes an ONNX graph: it can compute, and nothing else.

::

    this process                    the other one, with an empty folder and no environment of ours
    request, program  -- stdin -->  torch and onnx loaded, then confined, then the program loaded and followed
    sizes and graph,  <-- stdout -- them, or why there are none
    checked

Confined means: Linux lets it compute, take memory within limits, and read and write what is open already, which is
its pipes. Opening files and sockets, starting processes and sending them signals are refused by the kernel (seccomp),
for all of its threads, and cannot be got back. Where the kernel cannot do this nothing is run.
"""

import ctypes
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, UnsafeError
from .measure import WIDE
from .package import MOST

SECONDS = 600  # after which it is ended: following a network once takes some seconds
ROOM = 2**33  # bytes of address space beside what libraries take: a network and one small image
ENDING = ".pt2"  # of what torch.export saves
LARGEST = 2**15  # of a least size and of a step: a network of 15 levels
EXPORTED = ("archive_format", "serialized_exported_program.json")  # in files of torch.export, of newer and older torch
SAID = 300  # letters of what it says of an error
ALLOW, REFUSE, MISSING = 0x7FFF0000, 0x00050001, 0x00050026  # seccomp's answers: done, EPERM, ENOSYS
THREAD = 0x00010000  # CLONE_THREAD: a thread of the same process, and no new one
# What it may ask of the kernel, by number: x86-64, then arm64. Memory, threads of its own, time, and the open pipes.
CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160),
    "gettimeofday": (96, 169), "getrusage": (98, 165), "sysinfo": (99, 179), "sigaltstack": (131, 132),
    "gettid": (186, 178), "futex": (202, 98), "sched_setaffinity": (203, 122), "sched_getaffinity": (204, 123),
    "set_tid_address": (218, 96), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "get_mempolicy": (239, 236),
    "set_robust_list": (273, 99), "getcpu": (309, 168), "getrandom": (318, 278), "membarrier": (324, 283),
    "rseq": (334, 293),
}  # fmt: skip
# Machine: number of its kind in the kernel, which column above it is, and the numbers of clone, clone3 and seccomp.
MACHINES = {"x86_64": (0xC000003E, 0, 56, 435, 317), "aarch64": (0xC00000B7, 1, 220, 435, 277)}


def is_exported(data: bytes) -> bool:
    """Whether a file is what torch.export saves, a ``.pt2``; its list of contents is looked at alone."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.rpartition("/")[2] in EXPORTED for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError):
        return False


def converted(program: bytes, request: dict[str, Any], name: str) -> tuple[list[tuple[int, int]], bytes]:
    """Return what a program takes, and its ONNX graph, made in a process that can do nothing but compute.

    Parameters
    ----------
    program : bytes
        Of TorchScript, or of torch.export.
    request : dict
        ``shape`` of an input, and ``free``: its axes that may have other sizes, and those of the output. Empty where a
        program of torch.export is to say itself which sizes it takes.
    name : str
        What it is, as it is said.

    Returns
    -------
    list of (int, int)
        Per axis of the input its least size and the step to larger ones, 0 where there are none: as the program of
        torch.export says them; of others, and where they were given, nothing.
    bytes
        The graph.

    Raises
    ------
    UnsafeError
        Where this machine cannot confine a process.
    ModelError
        Where the program cannot be converted.
    """
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise UnsafeError(f"{name} is a program, which is followed only where Linux confines it; get it as ONNX")
    command = [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as c; c.main()"]
    wanted = request | {"exported": is_exported(program)}
    data = _answered(command, json.dumps(wanted).encode() + b"\n" + program, name)
    kind, _, content = data.partition(b"\n")
    if kind == b"graph":
        sizes, _, graph = content.partition(b"\n")
        return _sizes(sizes, name), graph
    if kind == b"open":
        raise UnsafeError(
            f"{name} is a program, and this kernel cannot confine a process: {_letters(content)}; get it as ONNX"
        )
    said = _letters(content) or "its process ended"
    raise ModelError(f"the program in {name} cannot be converted: {said}; get the package as ONNX")


def _answered(command: list[str], given: bytes, name: str) -> bytes:
    """Return what a process writes until it ends: so many bytes, in so many seconds."""
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        process = subprocess.Popen(command, stdin=file, cwd=empty, env=kept, **pipes)  # noqa: S603 - code of ours
        end = threading.Timer(SECONDS, process.kill)
        end.start()
        try:
            data = cast("Any", process.stdout).read(MOST + 1)
        finally:
            late = not end.is_alive()
            end.cancel()
            process.kill()
            process.communicate()
    if late or len(data) > MOST:
        raise ModelError(
            f"the program in {name} did not end in {SECONDS} s, or gives too much; get the package as ONNX"
        )
    return bytes(data)


def _sizes(said: bytes, name: str) -> list[tuple[int, int]]:
    """Return sizes as a process says them that is not trusted."""
    try:
        found = [(int(least), int(step)) for least, step in json.loads(said)]
    except (ValueError, TypeError, RecursionError):
        found = [(0, 0)]
    if any(not 0 < least <= LARGEST or not 0 <= step <= LARGEST for least, step in found):
        raise ModelError(f"the program in {name} takes sizes that cannot be; get it as ONNX")
    return found


def _letters(data: bytes) -> str:
    """Return what a process that is not trusted says, in letters that can be shown."""
    text = data[:SAID].decode("ascii", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def main() -> None:
    """Be the other process: read the request and the program, write what became of it."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a program prints goes nowhere
    request = json.loads(sys.stdin.buffer.readline())
    program = sys.stdin.buffer.read()
    exported = bool(request["exported"])
    one: dict[str, Any] = {"shape": [1, 1, 8, 8], "free": {"in": [2], "out": [2]}}
    for each in (one, {}) if exported else (one,):  # so that all of it is loaded
        _follow(_small(exported), each | {"exported": exported})
    try:
        confine()
    except OSError as error:
        out.write(b"open\n" + str(error).encode())
        return
    try:
        sizes, graph = _follow(program, request)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the process ends
        lines = [line.strip()[: SAID // 2] for line in str(error).splitlines() if line.strip()] or [""]
        said = f"{type(error).__name__} {'; '.join(dict.fromkeys((lines[0], lines[-1])))}"
        out.write(b"failed\n" + said.encode())
        return
    out.write(b"graph\n" + json.dumps(sizes).encode() + b"\n" + graph)


def _small(exported: bool) -> bytes:
    """Return a program with what networks have, so that what follows it is loaded before no file can be opened."""
    import torch
    from torch import nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.up = (
                nn.Conv2d(1, 2, 3, padding=1),
                nn.BatchNorm2d(2),
                nn.ConvTranspose2d(2, 2, 2, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.norm(self.conv(x)))
            low = nn.functional.leaky_relu(nn.functional.max_pool2d(y, 2))
            high = nn.functional.interpolate(low, scale_factor=2.0, mode="nearest")
            return torch.sigmoid(torch.cat([y, self.up(low), high], 1)).softmax(1)

    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        if exported:
            even = torch.export.Dim("half", max=LARGEST)
            free = ({2: 2 * even, 3: 2 * even},)
            torch.export.save(torch.export.export(Small().eval(), (torch.rand(1, 1, 8, 8),), dynamic_shapes=free), out)
        else:
            jit.save(jit.script(Small().eval()), out)
    return out.getvalue()


def _follow(program: bytes, request: dict[str, Any]) -> tuple[list[tuple[int, int]], bytes]:
    """Return the sizes that a program says it takes, and the graph of what it computes of an input."""
    import torch

    from .formats import Still, followed

    with torch.no_grad():
        jit: Any = torch.jit
        net = None if request["exported"] else jit.load(io.BytesIO(program), map_location="cpu").eval()
        exported = torch.export.load(io.BytesIO(program)) if net is None else None
        net = Still(cast("Any", exported).module()) if net is None else net
        sizes = _taken(exported) if exported is not None and not request.get("shape") else []
        if sizes:
            least = WIDE[len(sizes) - 2]
            shape = [1, *(n + -(-max(least - n, 0) // step) * step if step else n for n, step in sizes[1:])]
            places = [i for i, (_, step) in enumerate(sizes) if step and i > 1]
            request = request | {"shape": shape, "free": {"in": places, "out": places}}
        free = {name: {axis: f"{name}{axis}" for axis in axes} for name, axes in request["free"].items()}
        return sizes, followed(net, torch.rand(request["shape"]), free)


def _taken(exported: Any) -> list[tuple[int, int]]:
    """Return the least size and the step to larger ones, per axis of the one input of a program of torch.export."""
    (name,) = exported.graph_signature.user_inputs
    (node,) = [each for each in exported.graph.nodes if each.op == "placeholder" and each.name == name]
    found = []
    for size in node.meta["val"].shape:
        if isinstance(size, int):
            found.append((size, 0))
            continue
        expression = size.node.expr
        (symbol,) = expression.free_symbols
        one, two = (int(expression.subs(symbol, value)) for value in (1, 2))
        least = max(1, int(exported.range_constraints[symbol].lower))
        found.append((one + (two - one) * (least - 1), two - one))
    return found


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter)))


LOAD, EQUAL, SET, RETURN = 0x20, 0x15, 0x45, 0x06  # of the kernel's filters: take a word, compare, test bits, answer
NUMBER, KIND, FIRST = 0, 4, 16  # where a call's number, the machine's kind and its first argument lie


def confine() -> None:
    """Give up, for this process and all its threads, everything but computing; it cannot be got back.

    Raises
    ------
    OSError
        Where the kernel cannot do it.
    """
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, most in (
        (resource.RLIMIT_AS, used + ROOM),
        (resource.RLIMIT_CPU, SECONDS * (os.cpu_count() or 1)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    kind, column, clone, clone3, seccomp = MACHINES[platform.machine()]
    steps = [(LOAD, 0, 0, KIND), (EQUAL, 1, 0, kind), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, NUMBER)]
    for numbers in CALLS.values():
        steps += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ALLOW)]
    steps += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, MISSING)]  # its flags cannot be seen: clone is taken instead
    steps += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, FIRST), (SET, 0, 1, THREAD), (RETURN, 0, 0, ALLOW)]
    steps += [(RETURN, 0, 0, REFUSE)]
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    program = _Program(len(steps), ctypes.cast(filters, ctypes.POINTER(_Filter)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, all_threads = 38, 1, 1
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.syscall(
        ctypes.c_long(seccomp), ctypes.c_long(set_filter), ctypes.c_long(all_threads), ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), f"seccomp is refused: {os.strerror(ctypes.get_errno())}")

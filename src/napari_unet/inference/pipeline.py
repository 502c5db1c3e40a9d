"""Reading, computing, decoding and writing at the same time, in bounded queues."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

Piece = TypeVar("Piece")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Decoded = TypeVar("Decoded")
Written = TypeVar("Written")
AHEAD = 2  # pieces that wait between two threads: one would do if all took equally long
END: Any = object()


class Pipeline(Generic[Piece, Read, Computed, Decoded, Written]):
    """A thread that reads, one that decodes and one that writes, beside the caller's thread, which computes.

    Iterate over it: it yields what `write` returned for each piece. Closing the iterator stops the threads after what
    they are at; what was written stays written. An exception of any stage ends the run and is raised to the caller.

    Parameters
    ----------
    read : piece -> what the network needs
    compute : (piece, what was read) -> what the network gives
    decode : (piece, what was computed) -> what is to be written
    write : (piece, what was decoded) -> what is yielded
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        read: Callable[[Piece], Read],
        compute: Callable[[Piece, Read], Computed],
        decode: Callable[[Piece, Computed], Decoded],
        write: Callable[[Piece, Decoded], Written],
    ) -> None:
        self._pieces, self._compute = pieces, compute
        self._to_compute: queue.Queue[Any] = queue.Queue(AHEAD)
        self._to_decode: queue.Queue[Any] = queue.Queue(1)  # logits are the largest of what waits
        self._to_write: queue.Queue[Any] = queue.Queue(AHEAD)
        self._written: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        stages = (("writer", self._write_all, write), ("decoder", self._decode_all, decode))
        self._threads = [
            threading.Thread(target=self._guard, args=(work, stage), name=name, daemon=True)
            for name, work, stage in (*stages, ("reader", self._read_all, read))
        ]

    def __iter__(self) -> Generator[Written, None, None]:
        """Run; yield in the order of the pieces."""
        yield from self._run()
        if self._error is not None:
            raise self._error

    def _run(self) -> Iterator[Written]:
        try:
            for thread in self._threads:
                thread.start()
            while (got := self._take(self._to_compute)) is not END:
                piece, data = got
                self._put(self._to_decode, (piece, self._computed(piece, data)))
                yield from self._finished()
            self._end()
            yield from self._finished()
        finally:
            self._stop.set()
            for thread in self._threads:
                if thread.ident is not None:  # without memory for its stack a thread does not start
                    thread.join()

    def _computed(self, piece: Piece, data: Read) -> Computed:
        try:
            return self._compute(piece, data)
        except Exception:
            self._end()  # what was computed before is still written
            raise

    def _end(self) -> None:
        """Wait until all that was computed is decoded and written."""
        self._put(self._to_decode, END)
        for thread in self._threads[:2]:
            thread.join()

    def _finished(self) -> Iterator[Written]:
        while not self._written.empty():
            yield self._written.get()

    def _guard(self, work: Callable[[Any], None], stage: Callable[..., Any]) -> None:
        """Run a stage in its thread; an exception is kept for the caller and stops the others."""
        try:
            work(stage)
        except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread, where it is raised
            self._error = self._error or error
            self._stop.set()

    def _read_all(self, read: Callable[[Piece], Read]) -> None:
        for piece in self._pieces:
            if self._stop.is_set():
                return
            self._put(self._to_compute, (piece, read(piece)))
        self._put(self._to_compute, END)

    def _decode_all(self, decode: Callable[[Piece, Computed], Decoded]) -> None:
        try:
            while (got := self._take(self._to_decode)) is not END:
                piece, data = got
                self._put(self._to_write, (piece, decode(piece, data)))
        except BaseException:
            self._put(self._to_write, END)  # what was decoded before is still written
            self._threads[0].join()
            raise
        self._put(self._to_write, END)

    def _write_all(self, write: Callable[[Piece, Decoded], Written]) -> None:
        while (got := self._take(self._to_write)) is not END:
            piece, data = got
            self._written.put(write(piece, data))

    def _put(self, where: "queue.Queue[Any]", what: Any) -> None:
        while not self._stop.is_set():
            try:
                return where.put(what, timeout=0.1)
            except queue.Full:
                continue

    def _take(self, where: "queue.Queue[Any]") -> Any:
        while not self._stop.is_set():
            try:
                return where.get(timeout=0.1)
            except queue.Empty:
                continue
        return END

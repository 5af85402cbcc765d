"""Lines on this machine's disk until the store has them: append-only segments, flushed before an append returns.

Reads and writes a local folder:

    <folder>/<replica>.lock              held (flock) by the process that writes the replica's segments
    <folder>/<replica>-00000001.spool    lines: CRC-32 in hex, a blank, one JSON object, a line break

Two replicas never share a file. Whoever finds a lock that nobody holds takes over the segments beside it: their writer
has ended without emptying them. A line cut short by a crash, or one whose sum is wrong, was never acknowledged and is
passed over. Not thread-safe: one thread makes all calls.
"""

import fcntl
import json
import logging
import os
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuserank.artifacts import flush

log = logging.getLogger("fuserank.serve")
SEGMENT_BYTES = 1_000_000  # a segment that has grown so large gets a successor, and is deleted once it is empty
READ_BYTES = 250_000  # read at a time


@dataclass(eq=False)
class _Segment:
    path: Path
    size: int  # bytes that are durable
    lines: int  # that are durable and not stored yet
    offset: int = 0  # where those begin
    descriptor: int | None = None  # of the one that is written


@dataclass(frozen=True)
class Part:
    """Lines that come next."""

    segment: _Segment = field(repr=False)
    raw: bytes
    end: int
    lines: int

    def rows(self) -> list[Any]:
        """What they hold; lines that are damaged are left out. May be called from any thread."""
        found = [_decoded(line) for line in self.raw.removesuffix(b"\n").split(b"\n")]
        whole = [row for row in found if row is not None]
        if len(whole) < len(found):
            log.warning("%d damaged lines in %s are passed over", len(found) - len(whole), self.segment.path.name)
        return whole


class Spool:
    """The segments of one replica, and of those before it that ended with some left."""

    def __init__(self, folder: Path, limit: int):
        """Makes the folder and takes over what nobody holds.

        Args:
            folder: on a local disk.
            limit: bytes of all segments together.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit, self._most = folder, limit, min(SEGMENT_BYTES, limit // 8)
        self._segments: list[_Segment] = []  # the oldest first; the last one is written if it has a descriptor
        self._locks: dict[str, int] = {}
        self._replica, self._number = "", 0
        self.open()

    def open(self) -> None:
        """Be a replica, again after `close`, and take over what nobody holds. Raises OSError."""
        self._replica, self._number = uuid.uuid4().hex, 0
        while not self._hold(self._replica):  # another one may look at the lock before it is held
            self._replica = uuid.uuid4().hex
        self.adopt()

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def lines(self) -> int:
        """Not stored yet."""
        return sum(segment.lines for segment in self._segments)

    def append(self, rows: Sequence[Any]) -> list[bool]:
        """Write rows; those answered True are durable. False: there is no room, or the disk failed."""
        lines, fits, size = [_encoded(row) for row in rows], [], self.bytes
        for line in lines:
            fits.append(size + len(line) <= self._limit)
            size += len(line) if fits[-1] else 0
        data = b"".join(line for line, fit in zip(lines, fits, strict=True) if fit)
        if not data:
            return fits
        try:
            segment = self._writable()
        except OSError as error:
            log.error("no segment of the spool can be made: %s", error)
            return [False] * len(rows)
        try:
            _write(segment.descriptor, data)
        except OSError as error:
            log.error("the spool cannot be written: %s", error)
            self._abandon(segment)
            return [False] * len(rows)
        segment.size += len(data)
        segment.lines += sum(fits)
        return fits

    def read(self) -> Part | None:
        """The next lines that are durable and not stored; None if there are none."""
        for segment in self._segments:
            if segment.offset >= segment.size:
                continue
            with segment.path.open("rb") as file:
                file.seek(segment.offset)
                raw = file.read(min(READ_BYTES, segment.size - segment.offset))
                while b"\n" not in raw and segment.offset + len(raw) < segment.size:  # one line is longer than that
                    raw += file.read(min(READ_BYTES, segment.size - segment.offset - len(raw)))
            whole = raw[: raw.rfind(b"\n") + 1] or raw  # no line break up to the end: a crash cut the last line short
            return Part(segment, whole, segment.offset + len(whole), whole.count(b"\n"))
        return None

    def done(self, part: Part) -> None:
        """The store has these lines. Segments without others are emptied or deleted."""
        segment = part.segment
        segment.offset = part.end
        segment.lines -= part.lines
        if segment.offset >= segment.size:
            if segment.descriptor is None or segment.size >= self._most:
                self._delete(segment)
            else:
                self._empty(segment)
        for replica in [replica for replica in self._locks if replica != self._replica]:
            if not any(other.path.name.startswith(replica) for other in self._segments):
                self._release(replica)

    def adopt(self) -> int:
        """Take over what nobody holds; how many lines that were."""
        adopted: list[_Segment] = []
        for lock in sorted(self._folder.glob("*.lock")):
            if lock.stem in self._locks or not self._hold(lock.stem):
                continue
            found = [_found(path) for path in sorted(self._folder.glob(f"{lock.stem}-*.spool"))]
            adopted += found
            if not found:
                self._release(lock.stem)
        self._segments[:0] = adopted
        lines = sum(segment.lines for segment in adopted)
        if adopted:
            log.info("took over %d impressions that a gateway left in %s", lines, self._folder)
        return lines

    def close(self) -> None:
        """Let go of the files. What is empty is deleted; what is not waits for whoever takes it over."""
        for segment in list(self._segments):
            if segment.descriptor is not None:
                os.close(segment.descriptor)
                segment.descriptor = None
            if segment.offset >= segment.size:
                self._delete(segment)
        for replica in list(self._locks):
            kept = any(segment.path.name.startswith(replica) for segment in self._segments)
            self._release(replica, keep=kept)
        self._segments.clear()

    def _writable(self) -> _Segment:
        last = self._segments[-1] if self._segments else None
        if last is not None and last.descriptor is not None:
            if last.size < self._most:
                return last
            os.close(last.descriptor)
            last.descriptor = None
            if last.offset >= last.size:
                self._delete(last)
        self._number += 1
        path = self._folder / f"{self._replica}-{self._number:08d}.spool"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600)
        flush(self._folder)
        segment = _Segment(path, 0, 0, descriptor=descriptor)
        self._segments.append(segment)
        return segment

    def _abandon(self, segment: _Segment) -> None:
        """After a failed write nobody knows what lies behind the durable part: nothing more is written there."""
        assert segment.descriptor is not None
        try:
            os.ftruncate(segment.descriptor, segment.size)
        except OSError:
            log.warning("%s keeps a tail that was not acknowledged", segment.path.name)
        os.close(segment.descriptor)
        segment.descriptor = None
        if segment.offset >= segment.size:
            self._delete(segment)

    def _empty(self, segment: _Segment) -> None:
        """What the store has does not stay here, or a user's answers would outlive their erasure."""
        assert segment.descriptor is not None
        try:
            os.ftruncate(segment.descriptor, 0)
        except OSError as error:
            log.warning("%s keeps what the store has: %s", segment.path.name, error)
            return
        segment.size = segment.offset = segment.lines = 0

    def _delete(self, segment: _Segment) -> None:
        if segment.descriptor is not None:
            os.close(segment.descriptor)
            segment.descriptor = None
        segment.path.unlink(missing_ok=True)
        self._segments.remove(segment)

    def _hold(self, replica: str) -> bool:
        path = self._folder / f"{replica}.lock"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        if os.fstat(descriptor).st_nlink == 0:  # its holder deleted it in the meantime
            os.close(descriptor)
            return False
        self._locks[replica] = descriptor
        return True

    def _release(self, replica: str, keep: bool = False) -> None:
        if not keep:
            (self._folder / f"{replica}.lock").unlink(missing_ok=True)
        os.close(self._locks.pop(replica))


def _write(descriptor: int | None, data: bytes) -> None:
    assert descriptor is not None
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fdatasync(descriptor)


def _found(path: Path) -> _Segment:
    data = path.read_bytes()
    return _Segment(path, len(data), data.count(b"\n"))


def _encoded(row: Any) -> bytes:
    text = json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decoded(line: bytes) -> Any:
    sum_, _, text = line.partition(b" ")
    try:
        return json.loads(text) if int(sum_, 16) == zlib.crc32(text) else None
    except ValueError:
        return None

# cython: cdivision=True
"""The door of the local API as an object: the thread is C (`kernels/door.h`, which draws it)."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EMFILE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from posix.unistd cimport close

from typing import NamedTuple


cdef extern from "door.h" nogil:
    enum:
        DOOR_PATHS
        DOOR_KNOWN
        DOOR_REQUEST
        DOOR_HERE
        DOOR_LEAVING
        DOOR_LISTENERS
    ctypedef struct zt_door:
        pass
    ctypedef struct zt_caller:
        int fd
        bint last
        int requests
        uint8_t *data
        size_t size
        uint8_t *rest
        size_t rest_size
    ctypedef struct zt_door_counters:
        uint64_t answered
        uint64_t waited
        uint64_t left
    zt_door *zt_door_new(int64_t idle_ns, int requests)
    void zt_door_free(zt_door *door)
    int zt_door_start(zt_door *door, const int *listeners, int count)
    void zt_door_stop(zt_door *door)
    int zt_door_event_fd(const zt_door *door)
    bint zt_door_remember(zt_door *door, const void *request, size_t size, int path)
    bint zt_door_publish(
        zt_door *door, int path, const void *ordinary, size_t ordinary_size, const void *last,
        size_t last_size, int64_t until_ns,
    )
    void zt_door_forget(zt_door *door)
    uint32_t zt_door_wanted(zt_door *door)
    bint zt_door_take(zt_door *door, zt_caller *caller)
    zt_door_counters zt_door_count(zt_door *door)


KNOWN_LIMIT = DOOR_KNOWN
KNOWN_SIZE = DOOR_REQUEST
LIMIT = DOOR_HERE
LEAVING_LIMIT = DOOR_LEAVING


class Caller(NamedTuple):
    fd: int
    requests: int
    data: bytes
    rest: bytes
    last: bool


cdef bytes copied(const uint8_t *data, size_t size):
    return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size) if size else b""


cdef class Door:
    """Answers of `paths` paths (numbered from 0), `requests` on each connection, which may be silent
    for `idle_s` seconds. ValueError: too many paths. Its methods are for one thread."""

    cdef zt_door *door         # owned
    cdef int paths
    cdef readonly int event_fd

    def __cinit__(self, int paths, *, double idle_s, int requests):
        self.event_fd = -1
        if not 0 <= paths <= DOOR_PATHS:
            raise ValueError(f"at most {DOOR_PATHS} paths")
        self.paths = paths
        self.door = zt_door_new(<int64_t>(idle_s * 1e9), requests)
        if self.door == NULL:
            raise OSError(errno, "the door of the API")
        self.event_fd = zt_door_event_fd(self.door)

    def __dealloc__(self):
        if self.door != NULL:
            with nogil:
                zt_door_free(self.door)

    def start(self, listeners) -> None:
        """Accepts connections of listening, non-blocking sockets (descriptors), which stay the
        caller's and have to outlive `stop`. Once only. OSError."""
        cdef int[DOOR_LISTENERS] fds
        cdef int count = 0, error
        for fd in listeners:
            if count == DOOR_LISTENERS:
                raise OSError(EMFILE, "too many listeners")
            fds[count] = fd
            count += 1
        error = zt_door_start(self.door, fds, count)
        if error:
            raise OSError(error, "the door of the API")

    def stop(self) -> None:
        """Returns when the thread has ended and what it had of connections is closed."""
        with nogil:
            zt_door_stop(self.door)

    cdef int check(self, int path) except -1:
        if not 0 <= path < self.paths:
            raise ValueError(f"no path {path}")
        return 0

    def remember(self, bytes request not None, int path) -> None:
        """From now on a client on loopback that sends exactly this gets what is published for the
        path. Longer ones than KNOWN_SIZE bytes are not remembered, and one more than KNOWN_LIMIT
        replaces all. ValueError: no such path."""
        self.check(path)
        if not zt_door_remember(self.door, <const char *>request, <size_t>len(request), path):
            raise MemoryError

    def publish(self, int path, answers, double until) -> None:
        """Whole answers, an ordinary one and the last of a connection; they have to be made anew
        at `until` (seconds, `time.monotonic`). None: there is no answer, and who asks until then
        comes as a caller. ValueError: no such path."""
        cdef bytes ordinary, last
        cdef const char *first = NULL
        cdef const char *second = NULL
        cdef size_t first_size = 0, second_size = 0
        self.check(path)
        if answers is not None:
            ordinary, last = answers
            first, first_size = ordinary, <size_t>len(ordinary)
            second, second_size = last, <size_t>len(last)
        if not zt_door_publish(
            self.door, path, first, first_size, second, second_size, <int64_t>(until * 1e9)
        ):
            raise MemoryError

    def forget(self) -> None:
        """Requests that come from now on get nothing that was published before."""
        zt_door_forget(self.door)

    def wanted(self) -> list[int]:
        """Paths that somebody waits for, with all others that were asked for since they were
        published; to be published now. With `callers` what to do when `event_fd` is readable."""
        cdef uint32_t bits = zt_door_wanted(self.door)
        cdef int path
        return [path for path in range(DOOR_PATHS) if bits >> path & 1]

    def callers(self) -> list[Caller]:
        """Connections with something else than what is known; their descriptors are the caller's.
        `data`: what was read and is not answered, only from clients on loopback; `rest`: the end of
        an answer that did not fit into the socket, after which the `last` is to be closed;
        `requests` were answered."""
        cdef zt_caller c
        cdef list found = []
        while zt_door_take(self.door, &c):
            try:
                data, rest = copied(c.data, c.size), copied(c.rest, c.rest_size)
                found.append(Caller(c.fd, c.requests, data, rest, c.last))
            except MemoryError:
                close(c.fd)
            finally:
                free(c.data)
                free(c.rest)
        return found

    def counters(self) -> dict[str, int]:
        """Requests `answered` here, of these those that `waited` for an answer to be made, and
        connections that `left` for the caller."""
        cdef zt_door_counters counters = zt_door_count(self.door)
        return {
            "answered": counters.answered, "waited": counters.waited, "left": counters.left,
        }  # fmt: skip

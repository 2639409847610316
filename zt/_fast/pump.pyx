# cython: cdivision=True
"""Threads around the switch: UDP sockets <-> TAP devices (contract: docs/architecture.md).

::

                 UDP thread                                  TAP thread
    epoll ─► recvmmsg (GRO: up to 64 KiB each)    epoll ─► read until empty or a batch is full
                 │                                               │
            read lock, switch_receive, unlock             read lock, switch_transmit, unlock
                 │                                               │
          join, writev to TAPs; sendmmsg of              sendmmsg (GSO: up to 64 datagrams each)
          relayed datagrams (never waits)                (waits a little for a full socket)
                 │                                               │
              again                                            again

A thread works on what is ready and sleeps in epoll otherwise; there is no timer and no delay to
gather more. The two directions share nothing but the tables' lock and the punt queue, so that one
which is stuck holds up itself only. By default there is one thread of each kind; with more, each
socket or TAP queue belongs to one thread, which keeps the frames of a flow in order.

Buffers: each thread owns its lane and its receive buffers; both are reused for every batch, after
the results of the one before were handed to the kernel.

Sockets and TAPs are added and removed while every thread is parked at the head of its loop, so the
threads read these lists without a lock.
"""

import fcntl
import os

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close, read, write

from zt._fast.inbound cimport switch_receive
from zt._fast.offload cimport JOIN_TCP, JOIN_UDP
from zt._fast.outbound cimport hand_over, switch_transmit
from zt._fast.plane cimport (
    Burst, Cursor, zt_lane, zt_lane_allocate, zt_lane_free, zt_lane_init, zt_lane_reset, zt_queue_dropped,
)
from zt._fast.switch cimport Switch, lane_counters, parse_punts
from zt._fast.tables cimport (
    Place, make_place, pthread_rwlock_rdlock, pthread_rwlock_unlock, shared_count,
    shared_snapshot,
)


cdef int64_t now_ms(const Engine *engine) noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_BOOTTIME, &now)
    return now.tv_sec * 1000 + now.tv_nsec // 1000000 + engine.clock_offset_ms


cdef void *work(void *arg) noexcept nogil:
    """A thread from start to stop."""
    cdef Worker *worker = <Worker *>arg
    cdef Engine *engine = worker.engine
    cdef epoll_event[EVENTS] events
    cdef uint64_t value
    cdef int count, i
    zt_thread_prefer_latency()
    while not flag_load(&engine.stop):
        count = epoll_wait(worker.epoll_fd, events, EVENTS, -1)
        # First the wake-up, then the flag: a call that is drained here was made after its flag was
        # set. The other way round, one that comes in between would be lost, and its caller wait.
        for i in range(count):
            if events[i].data.u64 == WAKE:
                read(worker.wake_fd, &value, sizeof(value))
        if flag_load(&engine.pause):
            park(engine)
            continue  # the lists may have changed: ask again what is ready
        for i in range(count):
            if events[i].data.u64 == WAKE:
                continue
            if worker.udp:
                receive(worker, <uint32_t>events[i].data.u64)
            else:
                transmit(worker, <uint32_t>events[i].data.u64)
    return NULL


cdef void park(Engine *engine) noexcept nogil:
    """Waits while the control plane changes the lists."""
    pthread_mutex_lock(&engine.lock)
    engine.parked += 1
    pthread_cond_broadcast(&engine.changed)
    while flag_load(&engine.pause):
        pthread_cond_wait(&engine.changed, &engine.lock)
    engine.parked -= 1
    pthread_mutex_unlock(&engine.lock)


cdef void receive(Worker *worker, uint32_t index) noexcept nogil:
    """One batch from one socket. What more waits there is the next round's."""
    cdef Engine *engine = worker.engine
    cdef Cursor at
    cdef int64_t now
    cdef bint done = False
    cdef int count = zt_udp_receive(&worker.receive, &engine.sockets[index], &worker.counters)
    if count <= 0:
        return
    memset(&at, 0, sizeof(Cursor))
    now = now_ms(engine)
    while not done:
        pthread_rwlock_rdlock(&engine.plane.core.lock)
        done = switch_receive(
            engine.plane, &worker.lane, worker.receive.received, <uint32_t>count, &at, now
        )
        pthread_rwlock_unlock(&engine.plane.core.lock)
        zt_tap_write(&worker.lane, engine.taps, engine.tap_count, &worker.counters)
        hand_over(engine.plane, &worker.lane)
        zt_udp_send(
            &worker.send, engine.sockets, engine.socket_count, &worker.lane, 0, &worker.counters
        )
        zt_lane_reset(&worker.lane)


cdef void transmit(Worker *worker, uint32_t index) noexcept nogil:
    """What waits in one TAP queue, up to a batch."""
    cdef Engine *engine = worker.engine
    cdef const zt_tap *tap = &engine.taps[index]
    cdef Burst[BURSTS] batch
    cdef Cursor at
    cdef uint32_t count = 0, used = 0
    cdef int64_t now
    cdef bint done = False
    cdef int n
    while count < BURSTS and used < BURST_BYTES:
        n = zt_tap_read(tap, worker.bursts + used, &batch[count].vnet, &batch[count].data)
        if n < 0:  # the device is gone: it would report that for ever
            epoll_ctl(worker.epoll_fd, EPOLL_CTL_DEL, tap.fd, NULL)
        if n <= 0:
            break
        batch[count].nwid = tap.nwid
        batch[count].size = <uint32_t>n
        used = (<uint32_t>(batch[count].data + n - worker.bursts) + 63) & ~63
        count += 1
    if count == 0:
        return
    shared_count(&worker.counters.tap_reads, count)
    memset(&at, 0, sizeof(Cursor))
    now = now_ms(engine)
    while not done:
        pthread_rwlock_rdlock(&engine.plane.core.lock)
        done = switch_transmit(engine.plane, &worker.lane, batch, count, &at, now)
        pthread_rwlock_unlock(&engine.plane.core.lock)
        hand_over(engine.plane, &worker.lane)
        zt_udp_send(
            &worker.send, engine.sockets, engine.socket_count, &worker.lane, SEND_WAIT_MS, &worker.counters
        )
        zt_lane_reset(&worker.lane)


cdef void flush(void *pump, zt_lane *lane) noexcept nogil:
    """Sends what the control plane had the switch make; its thread is the one that changes the
    lists, so nothing has to be parked."""
    cdef Engine *engine = <Engine *>pump
    zt_tap_write(lane, engine.taps, engine.tap_count, &engine.counters)
    hand_over(engine.plane, lane)
    zt_udp_send(&engine.send, engine.sockets, engine.socket_count, lane, 0, &engine.counters)


OPTIONS = {
    "udp_gso": True,
    "udp_gro": True,
    "tap_tso": True,
    "tap_uso": True,
    "join_tcp": True,
    "join_udp": True,
    "udp_threads": 1,
    "tap_threads": 1,
    "receive_buffer": 8 << 20,
    "send_buffer": 4 << 20,
}


cdef class Pump:
    """Sockets, TAP devices and the threads that connect them through a switch.

    Options: `udp_gso`, `udp_gro`, `tap_tso`, `tap_uso`, `join_tcp`, `join_udp` (False forces a
    feature off; one that the kernel lacks is off anyway, see `features`), `udp_threads` and
    `tap_threads` (1 to 16 each), `receive_buffer` and `send_buffer` (bytes per socket, 0 leaves the
    system's default). TypeError: an unknown option.

    All methods are for one thread, the control plane's."""

    cdef Switch switch         # keeps engine.plane alive
    cdef Engine *engine        # owned
    cdef Worker **workers      # owned
    cdef uint32_t worker_count
    cdef bint running
    cdef readonly int event_fd
    cdef dict options
    cdef dict reasons          # feature -> why it is off

    def __cinit__(self, Switch switch not None, int64_t clock_offset_ms, **options):
        self.event_fd = -1
        unknown = options.keys() - OPTIONS.keys()
        if unknown:
            raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
        self.options = OPTIONS | options
        self.reasons = {name: "forced off" for name, value in self.options.items() if value is False}
        self.switch = switch
        self.engine = <Engine *>PyMem_Calloc(1, sizeof(Engine))
        self.workers = <Worker **>PyMem_Calloc(MAX_WORKERS, sizeof(Worker *))
        if self.engine == NULL or self.workers == NULL:
            raise MemoryError
        self.engine.plane = &switch.plane
        self.engine.clock_offset_ms = clock_offset_ms
        pthread_mutex_init(&self.engine.lock, NULL)
        pthread_cond_init(&self.engine.changed, NULL)
        self.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.event_fd < 0:
            raise OSError(errno, "eventfd")
        switch.plane.punts.wake_fd = self.event_fd
        switch.plane.pump = self.engine
        switch.plane.flush = flush
        for udp in (True, False):
            threads = self.options["udp_threads" if udp else "tap_threads"]
            if not 1 <= threads <= MAX_WORKERS // 2:
                raise ValueError("1 to 16 threads of each kind")
            for _ in range(threads):
                self.add_worker(udp)

    cdef int add_worker(self, bint udp) except -1:
        cdef Worker *worker = <Worker *>PyMem_Calloc(1, sizeof(Worker))
        cdef epoll_event event
        cdef bytes seed = os.urandom(32)
        if worker == NULL:
            raise MemoryError
        self.workers[self.worker_count] = worker
        self.worker_count += 1
        worker.engine = self.engine
        worker.udp = udp
        worker.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        worker.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        event.events = EPOLLIN
        event.data.u64 = WAKE
        if worker.epoll_fd < 0 or worker.wake_fd < 0:
            raise OSError(errno, "epoll")
        epoll_ctl(worker.epoll_fd, EPOLL_CTL_ADD, worker.wake_fd, &event)
        zt_lane_init(&worker.lane, <const uint8_t *>seed)
        if zt_lane_allocate(&worker.lane, ARENA, LANE_DATAGRAMS, LANE_FRAMES):
            raise MemoryError
        if udp:
            worker.receive.buffers = <uint8_t *>malloc(UDP_BATCH * UDP_ROOM)
        else:
            worker.bursts = <uint8_t *>malloc(BURST_BYTES + 2 * UDP_ROOM)
        if worker.receive.buffers == NULL and worker.bursts == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        cdef uint32_t i
        if self.running:
            self.stop()
        if self.switch is not None and self.switch.plane.punts.wake_fd == self.event_fd:
            self.switch.plane.punts.wake_fd = -1
            self.switch.plane.flush = NULL
        for i in range(self.worker_count):
            close(self.workers[i].epoll_fd)
            close(self.workers[i].wake_fd)
            zt_lane_free(&self.workers[i].lane)
            free(self.workers[i].receive.buffers)
            free(self.workers[i].bursts)
            PyMem_Free(self.workers[i])
        PyMem_Free(self.workers)
        if self.engine != NULL:  # else event_fd was never set: it is 0 then
            if self.event_fd >= 0:
                close(self.event_fd)
            pthread_mutex_destroy(&self.engine.lock)
            pthread_cond_destroy(&self.engine.changed)
            PyMem_Free(self.engine)

    # ---- threads ----

    def start(self) -> None:
        """Starts the threads; nothing happens if they run."""
        cdef sigset_t all_signals, before
        cdef uint32_t i
        cdef int failed = 0
        if self.running:
            return
        self.running = True
        flag_store(&self.engine.stop, 0)
        # Signals are the main thread's business.
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        for i in range(self.worker_count):
            failed = pthread_create(&self.workers[i].thread, NULL, work, self.workers[i])
            if failed:
                self.join_threads(i)
                break
            pthread_setname_np(self.workers[i].thread, b"zt-udp" if self.workers[i].udp else b"zt-tap")
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if failed:
            raise OSError(failed, "pthread_create")

    def stop(self) -> None:
        """Returns when no thread runs any more; what waits in sockets and TAPs stays there."""
        if self.running:
            self.join_threads(self.worker_count)

    cdef void join_threads(self, uint32_t count) noexcept:
        cdef uint32_t i
        flag_store(&self.engine.stop, 1)
        self.wake()
        with nogil:
            for i in range(count):
                pthread_join(self.workers[i].thread, NULL)
        self.running = False

    cdef void wake(self) noexcept:
        cdef uint64_t one = 1
        cdef uint32_t i
        for i in range(self.worker_count):
            write(self.workers[i].wake_fd, &one, sizeof(one))

    cdef void hold(self) noexcept:
        """Parks every thread."""
        if not self.running:
            return
        flag_store(&self.engine.pause, 1)
        self.wake()
        with nogil:
            pthread_mutex_lock(&self.engine.lock)
            while self.engine.parked < self.worker_count:
                pthread_cond_wait(&self.engine.changed, &self.engine.lock)
            pthread_mutex_unlock(&self.engine.lock)

    cdef void release(self) noexcept:
        with nogil:
            pthread_mutex_lock(&self.engine.lock)
            flag_store(&self.engine.pause, 0)
            pthread_cond_broadcast(&self.engine.changed)
            pthread_mutex_unlock(&self.engine.lock)

    cdef Worker *owner(self, bint udp, uint32_t index) noexcept:
        """The thread that serves a slot: they take turns."""
        cdef uint32_t udp_threads = self.options["udp_threads"]
        if udp:
            return self.workers[index % udp_threads]
        return self.workers[udp_threads + index % (self.worker_count - udp_threads)]

    cdef int watch(self, bint udp, uint32_t index, int fd) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = index
        if epoll_ctl(self.owner(udp, index).epoll_fd, EPOLL_CTL_ADD, fd, &event):
            raise OSError(errno, "epoll_ctl")
        return 0

    # ---- sockets and TAPs ----

    def udp_add(self, int socket, int fd) -> None:
        """Serves a bound UDP socket under a number of the caller's choice. Several descriptors may
        share one number (SO_REUSEPORT): each is read by a thread of its own, the first one sends.
        OSError: not a socket, or too many."""
        cdef zt_socket entry
        cdef uint32_t i = 0
        memset(&entry, 0, sizeof(zt_socket))
        entry.fd = fd
        entry.id = socket
        entry.gso.on = bool(self.options["udp_gso"])
        entry.gro.on = bool(self.options["udp_gro"])
        zt_udp_prepare(&entry, self.options["receive_buffer"], self.options["send_buffer"])
        self.note("udp_gso", &entry.gso)
        self.note("udp_gro", &entry.gro)
        while i < self.engine.socket_count and self.engine.sockets[i].fd >= 0:
            i += 1
        if i == MAX_SOCKETS:
            raise OSError(24, "too many sockets")
        self.hold()
        try:
            self.engine.sockets[i] = entry
            self.engine.socket_count = max(self.engine.socket_count, i + 1)
            self.watch(True, i, fd)
        except OSError:
            self.engine.sockets[i].fd = -1
            raise
        finally:
            self.release()

    def udp_remove(self, int socket) -> None:
        """Forgets the descriptors of that number; no thread uses them any more on return."""
        cdef uint32_t i
        self.hold()
        for i in range(self.engine.socket_count):
            if self.engine.sockets[i].fd >= 0 and self.engine.sockets[i].id == socket:
                epoll_ctl(self.owner(True, i).epoll_fd, EPOLL_CTL_DEL, self.engine.sockets[i].fd, NULL)
                self.engine.sockets[i].fd = -1
        self.release()

    def tap_add(self, uint64_t nwid, fds, *, bint vnet_hdr) -> None:
        """Serves a network's TAP, one descriptor per queue. `vnet_hdr`: opened with IFF_VNET_HDR,
        so that its offloads can be used. OSError: no TAP, or too many queues."""
        cdef zt_tap entry
        cdef zt_feature tso, uso
        cdef uint32_t i
        cdef int fd
        self.hold()
        try:
            for fd in fds:
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
                memset(&entry, 0, sizeof(zt_tap))
                memset(&tso, 0, sizeof(zt_feature))
                memset(&uso, 0, sizeof(zt_feature))
                entry.fd = fd
                entry.nwid = nwid
                entry.vnet = vnet_hdr
                if vnet_hdr:
                    tso.on = bool(self.options["tap_tso"])
                    uso.on = bool(self.options["tap_uso"])
                    zt_tap_prepare(fd, &tso, &uso)
                    self.note("tap_tso", &tso)
                    self.note("tap_uso", &uso)
                    if tso.on and self.options["join_tcp"]:
                        entry.kinds |= JOIN_TCP
                    if uso.on and self.options["join_udp"]:
                        entry.kinds |= JOIN_UDP
                else:
                    self.reasons.setdefault("tap_tso", "TAP without IFF_VNET_HDR")
                i = 0
                while i < self.engine.tap_count and self.engine.taps[i].fd >= 0:
                    i += 1
                if i == MAX_TAPS:
                    raise OSError(24, "too many TAP queues")
                self.watch(False, i, fd)
                self.engine.taps[i] = entry
                self.engine.tap_count = max(self.engine.tap_count, i + 1)
        finally:
            self.release()

    def tap_remove(self, uint64_t nwid) -> None:
        """Forgets a network's TAP; no thread uses its descriptors any more on return."""
        cdef uint32_t i
        self.hold()
        for i in range(self.engine.tap_count):
            if self.engine.taps[i].fd >= 0 and self.engine.taps[i].nwid == nwid:
                epoll_ctl(self.owner(False, i).epoll_fd, EPOLL_CTL_DEL, self.engine.taps[i].fd, NULL)
                self.engine.taps[i].fd = -1
                self.engine.taps[i].nwid = 0
        self.release()

    cdef int note(self, str name, const zt_feature *feature) except -1:
        cdef int error = zt_refused(feature)
        if error:
            self.reasons[name] = f"{feature.what.decode()}: {os.strerror(error)}"
        return 0

    # ---- the control plane's side ----

    def punts(self):
        """What waits for the control plane, in order; `event_fd` is readable while there is any."""
        return parse_punts(&self.switch.plane.punts)

    def send(self, int socket, bytes ip not None, int port, bytes datagram not None, int ttl=0):
        """Sends one datagram over a socket, or over every socket of the family (-1). `ttl`: 0 is the
        socket's own. False: the kernel took none."""
        cdef Place place
        cdef uint32_t i
        cdef bint sent = False
        make_place(&place, socket, ip, port)
        for i in range(self.engine.socket_count):
            if self.engine.sockets[i].fd < 0 or (socket >= 0 and self.engine.sockets[i].id != socket):
                continue
            if socket < 0 and self.engine.sockets[i].ipv6 != (place.ip_size == 16):
                continue
            sent |= zt_udp_send_one(
                &self.engine.sockets[i], &place, <const uint8_t *>datagram, len(datagram), ttl
            )
            if socket >= 0:
                break
        return sent

    def write_frame(self, uint64_t nwid, bytes frame not None):
        """Writes one Ethernet frame to a network's TAP. False: no such TAP, or it refused."""
        cdef uint32_t i
        for i in range(self.engine.tap_count):
            if self.engine.taps[i].fd >= 0 and self.engine.taps[i].nwid == nwid:
                return zt_tap_write_one(&self.engine.taps[i], <const uint8_t *>frame, len(frame))
        return False

    def features(self):
        """Why a feature is off, by its option's name; "" while it is on."""
        cdef uint32_t i
        for i in range(self.engine.socket_count):
            if self.engine.sockets[i].fd >= 0:
                self.note("udp_gso", &self.engine.sockets[i].gso)
        return {
            name: self.reasons.get(name, "") for name, value in OPTIONS.items() if isinstance(value, bool)
        }

    def counters(self):
        """Sums over the threads, and what was sent for the switch's own methods; the names are those
        of switch_lane.h and pump_io.h."""
        cdef uint32_t i
        parts = [io_counters(&self.engine.counters)]
        for i in range(self.worker_count):
            parts.append(lane_counters(&self.workers[i].lane.counters))
            parts.append(io_counters(&self.workers[i].counters))
        total = {}
        for part in parts:
            for name, value in part.items():
                total[name] = total.get(name, 0) + value
        total["punts_lost"] = zt_queue_dropped(&self.switch.plane.punts)
        return total


cdef dict io_counters(const zt_io_counters *counters):
    cdef zt_io_counters c
    shared_snapshot(&c, counters, sizeof(c))
    return {
        "udp_receives": c.udp_receives, "udp_merged": c.udp_merged,
        "udp_truncated": c.udp_truncated, "udp_sends": c.udp_sends,
        "udp_segmented": c.udp_segmented, "udp_segment_refused": c.udp_segment_refused,
        "udp_blocked": c.udp_blocked, "udp_failed": c.udp_failed,
        "tap_reads": c.tap_reads, "tap_writes": c.tap_writes,
        "tap_joined": c.tap_joined, "tap_failed": c.tap_failed,
    }  # fmt: skip

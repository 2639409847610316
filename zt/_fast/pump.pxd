# What the pump is made of: system calls, its C parts, and the structs its threads share.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from zt._fast.fragment cimport pthread_mutex_t
from zt._fast.offload cimport zt_vnet
from zt._fast.plane cimport Plane, Received, zt_lane
from zt._fast.tables cimport Place


cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t *thread, const void *attr, void *(*run)(void *) noexcept nogil, void *arg)
    int pthread_join(pthread_t thread, void **result)
    int pthread_setname_np(pthread_t thread, const char *name)
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)
    int pthread_cond_init(pthread_cond_t *cond, const void *attr)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
    int pthread_cond_broadcast(pthread_cond_t *cond)


cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_SETMASK
    int sigfillset(sigset_t *set)
    int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
        EPOLLIN
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int count, int timeout)


cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_NONBLOCK
        EFD_CLOEXEC
    int eventfd(unsigned int value, int flags)


cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_BOOTTIME
    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    int clock_gettime(int clock, timespec *now)


cdef extern from "pump_io.h" nogil:
    enum:
        UDP_BATCH
        UDP_ROOM
        TAP_ROOM
    ctypedef struct zt_feature:
        uint8_t on
        const char *what
    ctypedef struct zt_socket:
        int fd
        int32_t id
        uint8_t ipv6
        zt_feature gso
        zt_feature gro
    ctypedef struct zt_tap:
        int fd
        uint64_t nwid
        uint8_t vnet
        uint8_t kinds
    ctypedef struct zt_io_counters:
        uint64_t udp_receives
        uint64_t udp_merged
        uint64_t udp_truncated
        uint64_t udp_sends
        uint64_t udp_segmented
        uint64_t udp_segment_refused
        uint64_t udp_blocked
        uint64_t udp_failed
        uint64_t tap_reads
        uint64_t tap_writes
        uint64_t tap_joined
        uint64_t tap_failed
    ctypedef struct zt_udp_in:
        uint8_t *buffers
        Received *received
    ctypedef struct zt_udp_out:
        pass
    void zt_thread_prefer_latency()
    int zt_refused(const zt_feature *feature)
    void zt_udp_prepare(zt_socket *socket, int receive_bytes, int send_bytes)
    int zt_udp_receive(zt_udp_in *room, const zt_socket *socket, zt_io_counters *counters)
    void zt_udp_send(
        zt_udp_out *room, zt_socket *sockets, uint32_t socket_count, const zt_lane *lane, int wait_ms,
        zt_io_counters *counters,
    )
    bint zt_udp_send_one(const zt_socket *socket, const Place *place, const void *data, size_t size, int ttl)
    void zt_tap_prepare(int fd, zt_feature *tso, zt_feature *uso)
    int zt_tap_read(const zt_tap *tap, uint8_t *buffer, zt_vnet *vnet, uint8_t **frame)
    void zt_tap_write(zt_lane *lane, const zt_tap *taps, uint32_t tap_count, zt_io_counters *counters)
    bint zt_tap_write_one(const zt_tap *tap, const void *frame, size_t size)


cdef extern from * nogil:
    """
    static inline int flag_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void flag_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    int flag_load(const int *p)
    void flag_store(int *p, int v)


cdef enum:
    MAX_SOCKETS = 256
    MAX_TAPS = 256             # queues of all TAPs together
    MAX_WORKERS = 32
    EVENTS = 32                # of one epoll_wait
    BURSTS = 128               # of one batch from the TAPs
    BURST_BYTES = 1 << 18      # after which a batch is full
    ARENA = 1 << 21            # only what is used of it becomes resident
    LANE_DATAGRAMS = 1 << 15
    LANE_FRAMES = 1 << 12
    SEND_WAIT_MS = 10          # the TAP thread's patience with a full socket
    WAKE = 0xFFFFFFFF          # the epoll key of a thread's own eventfd


cdef struct Engine:
    Plane *plane
    int64_t clock_offset_ms
    zt_socket[MAX_SOCKETS] sockets  # a slot with descriptor -1 is free
    zt_tap[MAX_TAPS] taps      # likewise
    uint32_t socket_count      # slots ever used
    uint32_t tap_count
    # parking: see park()
    pthread_mutex_t lock
    pthread_cond_t changed
    zt_udp_out send            # room for one send call of the control plane
    zt_io_counters counters    # of the control plane
    int pause                  # atomic
    int stop                   # atomic
    uint32_t parked


cdef struct Worker:
    Engine *engine
    pthread_t thread
    bint udp                   # else TAP
    int epoll_fd
    int wake_fd
    zt_lane lane
    zt_io_counters counters
    zt_udp_out send            # room for one send call
    zt_udp_in receive          # UDP only; the buffers are owned
    uint8_t *bursts            # TAP only, owned: BURST_BYTES + TAP_ROOM

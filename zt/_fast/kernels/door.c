#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "door.h"

enum {
    CALLERS = DOOR_HERE + DOOR_LEAVING,
    ROOM = 4096, /* bytes of one read: an ordinary request that is not known leaves as a whole */
    EVENTS = 64,
};

#define SECOND_NS 1000000000
/* Keys of the epoll set: callers by their index, then these. */
#define KEY_LISTENER 0x10000
#define KEY_WAKE 0x20000

typedef struct Link {
    struct Link *next, *prev;
} Link;

/* The whole answers for a path, `data` first the ordinary one, then the last of a connection. */
typedef struct {
    uint32_t users; /* under the lock; the last one frees it */
    size_t size[2];
    uint8_t data[];
} Answer;

typedef struct {
    Answer *answer;   /* NULL: none */
    int64_t until_ns; /* to be made anew from then on; 0: it was forgotten */
    uint32_t made;    /* how often it was */
    bool asked;       /* since it was made */
    bool awaited;     /* by a caller that waits */
} Path;

typedef struct {
    uint8_t *request; /* owned */
    size_t size;
    int path;
} Known;

/* A connection. Its place in a list says whose it is: of `vacant` and `leaving` nobody's but under
 * the lock, of `here` and `waiting` the thread's. */
typedef struct {
    Link link; /* first, so that a link is its caller */
    zt_caller call; /* fd -1: vacant */
    bool inside;    /* counted in `inside` */
    bool watched;   /* in the epoll set */
    int path;       /* while waiting: what for, */
    uint32_t made;  /* and how often that had been made */
    int64_t heard_ns;
} Caller;

struct zt_door {
    pthread_mutex_t lock; /* guards what follows, down to the thread's own */
    Path paths[DOOR_PATHS];
    Known known[DOOR_KNOWN];
    int known_count;
    Link vacant, leaving;
    bool wanted;  /* somebody waits for an answer that nobody makes yet */
    bool told;    /* the event is set */
    bool stalled; /* the thread wants to know when there is a vacancy */
    zt_door_counters counters;

    /* The thread's own. */
    Link here; /* longest silent first */
    Link waiting;
    int inside; /* here and waiting */
    int64_t now_ns; /* when this round began: near enough until the next */
    bool listening; /* else not before `resume_ns`, and a vacancy */
    int64_t resume_ns;
    uint8_t room[ROOM];

    /* Set before it starts. */
    int64_t idle_ns;
    int requests;
    int listeners[DOOR_LISTENERS];
    int listener_count;
    int epoll_fd, wake_fd, event_fd;
    pthread_t thread;
    bool running;
    int stop; /* atomic */
    Caller callers[CALLERS];
};

/* ---- lists ---- */

static void list_init(Link *list)
{
    list->next = list->prev = list;
}

static void unlink_from(Link *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
}

static void append(Link *list, Link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

static Caller *first(const Link *list)
{
    return list->next == list ? NULL : (Caller *)list->next;
}

/* ---- small things ---- */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static void poke(int fd)
{
    uint64_t one = 1;
    (void)!write(fd, &one, sizeof one);
}

/* With the lock held. */
static void tell(zt_door *door)
{
    if (!door->told)
        poke(door->event_fd);
    door->told = true;
}

static bool on_loopback(const struct sockaddr_storage *name)
{
    const struct in6_addr *six = &((const struct sockaddr_in6 *)name)->sin6_addr;
    if (name->ss_family == AF_INET)
        return *(const uint8_t *)&((const struct sockaddr_in *)name)->sin_addr == 127;
    if (name->ss_family != AF_INET6)
        return false;
    return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
}

/* Takes as long for every request of that size: what is remembered has a token in it, and nobody
 * shall find it byte by byte. */
static bool equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

static bool keep(uint8_t **copy, size_t *copy_size, const uint8_t *data, size_t size)
{
    *copy = malloc(size);
    if (!*copy)
        return false;
    memcpy(*copy, data, size);
    *copy_size = size;
    return true;
}

/* With the lock held. */
static void drop(Answer *answer)
{
    if (answer && --answer->users == 0)
        free(answer);
}

/* ---- a caller's ways ---- */

static void vacate(zt_door *door, Caller *c)
{
    c->call = (zt_caller){.fd = -1};
    c->inside = c->watched = false;
    append(&door->vacant, &c->link);
}

/* From the thread's own, which it is no longer. */
static void detach(zt_door *door, Caller *c)
{
    unlink_from(&c->link);
    door->inside -= c->inside;
    c->inside = false;
}

static void hang_up(zt_door *door, Caller *c)
{
    detach(door, c);
    close(c->call.fd);
    free(c->call.data);
    free(c->call.rest);
    pthread_mutex_lock(&door->lock);
    vacate(door, c);
    pthread_mutex_unlock(&door->lock);
}

/* To the host, with `data` and `rest` as they are. */
static void leave(zt_door *door, Caller *c)
{
    detach(door, c);
    if (c->watched)
        epoll_ctl(door->epoll_fd, EPOLL_CTL_DEL, c->call.fd, NULL);
    pthread_mutex_lock(&door->lock);
    append(&door->leaving, &c->link);
    door->counters.left++;
    tell(door);
    pthread_mutex_unlock(&door->lock);
}

static void watch(zt_door *door, Caller *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)(c - door->callers)};
    int how = c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(door->epoll_fd, how, c->call.fd, &event) == 0)
        c->watched = true;
    else
        hang_up(door, c);
}

/* `before`: it was `here` already, and watched for its next request. */
static void stay(zt_door *door, Caller *c, bool before)
{
    unlink_from(&c->link);
    append(&door->here, &c->link);
    if (!before)
        watch(door, c, EPOLLIN);
}

static void reply(zt_door *door, Caller *c, Answer *answer, bool before)
{
    bool last = ++c->call.requests >= door->requests;
    const uint8_t *data = answer->data + (last ? answer->size[0] : 0);
    size_t size = answer->size[last];
    ssize_t sent = send(c->call.fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        sent = 0;
    c->heard_ns = door->now_ns;
    if (sent >= 0 && (size_t)sent < size) {
        c->call.last = last;
        if (keep(&c->call.rest, &c->call.rest_size, data + sent, size - (size_t)sent))
            leave(door, c);
        else
            hang_up(door, c);
    } else if (sent < 0 || last) {
        hang_up(door, c);
    } else {
        stay(door, c, before);
    }
    pthread_mutex_lock(&door->lock);
    door->counters.answered++;
    drop(answer);
    pthread_mutex_unlock(&door->lock);
}

typedef enum { ANSWER, WAIT, LEAVE } Verdict;

/* With the lock held. */
static void await(zt_door *door, Caller *c, int path)
{
    c->path = path;
    c->made = door->paths[path].made;
    door->paths[path].asked = door->paths[path].awaited = door->wanted = true;
    tell(door);
}

/* ANSWER: *answer is the thread's to drop. */
static Verdict judge(zt_door *door, Caller *c, const uint8_t *data, size_t size, Answer **answer)
{
    Verdict verdict = LEAVE;
    int path = -1;
    pthread_mutex_lock(&door->lock);
    for (int i = 0; i < door->known_count; i++)
        if (door->known[i].size == size && equal(door->known[i].request, data, size))
            path = door->known[i].path;
    if (path >= 0) {
        Path *p = &door->paths[path];
        p->asked = true;
        if (p->until_ns <= door->now_ns) {
            await(door, c, path);
            verdict = WAIT;
        } else if (p->answer) {
            p->answer->users++;
            *answer = p->answer;
            verdict = ANSWER;
        }
    }
    pthread_mutex_unlock(&door->lock);
    return verdict;
}

/* Something can be read; `before`: and it is watched for that. */
static void hear(zt_door *door, Caller *c, bool before)
{
    Answer *answer = NULL;
    ssize_t size = recv(c->call.fd, door->room, ROOM, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        if (!before)
            watch(door, c, EPOLLIN);
        return;
    }
    if (size <= 0) {
        hang_up(door, c);
        return;
    }
    Verdict verdict = judge(door, c, door->room, (size_t)size, &answer);
    if (verdict == ANSWER) {
        reply(door, c, answer, before);
    } else if (!keep(&c->call.data, &c->call.size, door->room, (size_t)size)) {
        hang_up(door, c);
    } else if (verdict == LEAVE) {
        leave(door, c);
    } else {
        unlink_from(&c->link);
        append(&door->waiting, &c->link);
        watch(door, c, 0); /* what else it says has time; that it is gone is told all the same */
    }
}

/* Those that wait, if what they wait for was made: also if that is old again by now. */
static void attend(zt_door *door)
{
    Link *next;
    for (Link *link = door->waiting.next; link != &door->waiting; link = next) {
        Caller *c = (Caller *)link;
        Answer *answer = NULL;
        bool made, gone = false;
        next = link->next;
        pthread_mutex_lock(&door->lock);
        Path *p = &door->paths[c->path];
        made = p->made != c->made;
        if (made && p->answer) {
            p->answer->users++;
            answer = p->answer;
            door->counters.waited++;
        } else if (made && p->until_ns == 0) {
            await(door, c, c->path); /* made and forgotten in between */
        } else {
            gone = made; /* there is no answer */
        }
        pthread_mutex_unlock(&door->lock);
        if (answer) {
            free(c->call.data);
            c->call.data = NULL;
            c->call.size = 0;
            reply(door, c, answer, false);
        } else if (gone) {
            leave(door, c);
        }
    }
}

/* ---- listening ---- */

static void listen_for(zt_door *door, bool on)
{
    for (int i = 0; i < door->listener_count; i++) {
        struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.u64 = KEY_LISTENER + (uint64_t)i};
        epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, door->listeners[i], &event);
    }
    door->listening = on;
}

/* Accepts one connection; if there are more, epoll says so again. */
static void accept_one(zt_door *door, int listener)
{
    struct sockaddr_storage name = {0};
    socklen_t name_size = sizeof name;
    pthread_mutex_lock(&door->lock);
    Caller *c = first(&door->vacant);
    if (c)
        unlink_from(&c->link);
    else
        door->stalled = true;
    pthread_mutex_unlock(&door->lock);
    if (!c) {
        listen_for(door, false);
        return;
    }
    int fd = accept4(listener, (struct sockaddr *)&name, &name_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        pthread_mutex_lock(&door->lock);
        append(&door->vacant, &c->link);
        pthread_mutex_unlock(&door->lock);
        if (error != EAGAIN && error != EINTR && error != ECONNABORTED) {
            /* No descriptor or no memory: epoll would report the connection for ever. */
            door->resume_ns = door->now_ns + SECOND_NS;
            listen_for(door, false);
        }
        return;
    }
    c->call = (zt_caller){.fd = fd};
    c->heard_ns = door->now_ns;
    c->inside = on_loopback(&name) && door->inside < DOOR_HERE;
    append(&door->here, &c->link);
    if (c->inside) {
        door->inside++;
        hear(door, c, false);
    } else {
        leave(door, c);
    }
}

static void listen_again(zt_door *door)
{
    if (door->listening || door->now_ns < door->resume_ns)
        return;
    pthread_mutex_lock(&door->lock);
    bool vacant = first(&door->vacant) != NULL;
    door->stalled = !vacant;
    pthread_mutex_unlock(&door->lock);
    if (vacant)
        listen_for(door, true);
}

/* ---- the thread ---- */

static int patience_ms(const zt_door *door)
{
    int64_t due = INT64_MAX;
    const Caller *oldest = first(&door->here);
    if (oldest)
        due = oldest->heard_ns + door->idle_ns;
    if (!door->listening && door->resume_ns > door->now_ns && door->resume_ns < due)
        due = door->resume_ns;
    if (due == INT64_MAX)
        return -1;
    return due <= door->now_ns ? 0 : (int)((due - door->now_ns) / 1000000 + 1);
}

static void *work(void *arg)
{
    zt_door *door = arg;
    struct epoll_event events[EVENTS];
    while (!__atomic_load_n(&door->stop, __ATOMIC_ACQUIRE)) {
        bool woken = false;
        int count = epoll_wait(door->epoll_fd, events, EVENTS, patience_ms(door));
        door->now_ns = now_ns();
        /* First the callers: none of these events is of one that came after it. */
        for (int i = 0; i < count; i++) {
            uint64_t key = events[i].data.u64;
            if (key == KEY_WAKE) {
                uint64_t value;
                (void)!read(door->wake_fd, &value, sizeof value);
                woken = true;
            } else if (key < CALLERS) {
                Caller *c = &door->callers[key];
                if (c->call.data) /* it waits, and is gone */
                    hang_up(door, c);
                else
                    hear(door, c, true);
            }
        }
        if (woken)
            attend(door);
        for (int i = 0; i < count && door->listening; i++) {
            uint64_t key = events[i].data.u64;
            if (key >= KEY_LISTENER && key < KEY_WAKE)
                accept_one(door, door->listeners[key - KEY_LISTENER]);
        }
        for (Caller *c; (c = first(&door->here)) && c->heard_ns + door->idle_ns <= door->now_ns;)
            hang_up(door, c);
        listen_again(door);
    }
    return NULL;
}

/* ---- the host's side ---- */

zt_door *zt_door_new(int64_t idle_ns, int requests)
{
    zt_door *door = calloc(1, sizeof *door);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = KEY_WAKE};
    if (!door)
        return NULL;
    pthread_mutex_init(&door->lock, NULL);
    list_init(&door->vacant);
    list_init(&door->leaving);
    list_init(&door->here);
    list_init(&door->waiting);
    for (int i = 0; i < CALLERS; i++)
        vacate(door, &door->callers[i]);
    door->idle_ns = idle_ns;
    door->requests = requests;
    door->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    door->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    door->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (door->epoll_fd < 0 || door->wake_fd < 0 || door->event_fd < 0 ||
        epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, door->wake_fd, &event) != 0) {
        int error = errno;
        zt_door_free(door);
        errno = error;
        return NULL;
    }
    return door;
}

void zt_door_free(zt_door *door)
{
    zt_door_stop(door);
    for (int i = 0; i < DOOR_PATHS; i++)
        drop(door->paths[i].answer);
    for (int i = 0; i < door->known_count; i++)
        free(door->known[i].request);
    if (door->epoll_fd >= 0)
        close(door->epoll_fd);
    if (door->wake_fd >= 0)
        close(door->wake_fd);
    if (door->event_fd >= 0)
        close(door->event_fd);
    pthread_mutex_destroy(&door->lock);
    free(door);
}

int zt_door_start(zt_door *door, const int *listeners, int count)
{
    sigset_t all_signals, before;
    int failed;
    if (door->running || door->stop || count > DOOR_LISTENERS)
        return EINVAL;
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = KEY_LISTENER + (uint64_t)i};
        if (epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, listeners[i], &event) != 0)
            return errno;
        door->listeners[i] = listeners[i];
        door->listener_count = i + 1;
    }
    door->listening = true;
    /* Signals are the main thread's business. */
    sigfillset(&all_signals);
    pthread_sigmask(SIG_SETMASK, &all_signals, &before);
    failed = pthread_create(&door->thread, NULL, work, door);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return failed;
    pthread_setname_np(door->thread, "zt-door");
    /* A request is worth no interruption of those who carry traffic: it is answered when a processor
     * is idle or somebody's turn ends. Where that is refused, nothing is lost. */
    pthread_setschedparam(door->thread, SCHED_BATCH, &(struct sched_param){0});
    door->running = true;
    return 0;
}

void zt_door_stop(zt_door *door)
{
    if (door->running) {
        __atomic_store_n(&door->stop, 1, __ATOMIC_RELEASE);
        poke(door->wake_fd);
        pthread_join(door->thread, NULL);
        door->running = false;
    }
    for (int i = 0; i < CALLERS; i++)
        if (door->callers[i].call.fd >= 0)
            hang_up(door, &door->callers[i]);
}

int zt_door_event_fd(const zt_door *door)
{
    return door->event_fd;
}

bool zt_door_remember(zt_door *door, const void *request, size_t size, int path)
{
    Known new = {.path = path};
    bool known = false;
    if (size > DOOR_REQUEST)
        return true;
    if (!keep(&new.request, &new.size, request, size))
        return false;
    pthread_mutex_lock(&door->lock);
    for (int i = 0; i < door->known_count; i++)
        known |= door->known[i].size == size && equal(door->known[i].request, request, size);
    if (known) {
        free(new.request);
    } else {
        if (door->known_count == DOOR_KNOWN)
            while (door->known_count > 0)
                free(door->known[--door->known_count].request);
        door->known[door->known_count++] = new;
    }
    pthread_mutex_unlock(&door->lock);
    return true;
}

bool zt_door_publish(zt_door *door, int path, const void *ordinary, size_t ordinary_size,
                     const void *last, size_t last_size, int64_t until_ns)
{
    Path *p = &door->paths[path];
    Answer *answer = NULL;
    if (ordinary) {
        answer = malloc(sizeof *answer + ordinary_size + last_size);
        if (!answer)
            return false;
        *answer = (Answer){.users = 1, .size = {ordinary_size, last_size}};
        memcpy(answer->data, ordinary, ordinary_size);
        memcpy(answer->data + ordinary_size, last, last_size);
    }
    pthread_mutex_lock(&door->lock);
    drop(p->answer);
    p->answer = answer;
    p->until_ns = until_ns;
    p->made++;
    p->asked = false;
    if (p->awaited)
        poke(door->wake_fd);
    p->awaited = false;
    pthread_mutex_unlock(&door->lock);
    return true;
}

void zt_door_forget(zt_door *door)
{
    pthread_mutex_lock(&door->lock);
    for (int i = 0; i < DOOR_PATHS; i++) {
        drop(door->paths[i].answer);
        door->paths[i].answer = NULL;
        door->paths[i].until_ns = 0;
    }
    pthread_mutex_unlock(&door->lock);
}

uint32_t zt_door_wanted(zt_door *door)
{
    uint32_t paths = 0;
    uint64_t value;
    pthread_mutex_lock(&door->lock);
    (void)!read(door->event_fd, &value, sizeof value);
    door->told = false;
    if (door->wanted)
        for (int i = 0; i < DOOR_PATHS; i++)
            paths |= (uint32_t)door->paths[i].asked << i;
    door->wanted = false;
    pthread_mutex_unlock(&door->lock);
    return paths;
}

bool zt_door_take(zt_door *door, zt_caller *caller)
{
    pthread_mutex_lock(&door->lock);
    Caller *c = first(&door->leaving);
    if (c) {
        unlink_from(&c->link);
        *caller = c->call;
        vacate(door, c);
        if (door->stalled)
            poke(door->wake_fd);
        door->stalled = false;
    }
    pthread_mutex_unlock(&door->lock);
    return c != NULL;
}

zt_door_counters zt_door_count(zt_door *door)
{
    pthread_mutex_lock(&door->lock);
    zt_door_counters counters = door->counters;
    pthread_mutex_unlock(&door->lock);
    return counters;
}

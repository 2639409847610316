#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "door_parts.h"

enum {
    EVENTS = 64, /* of one round */
};

#define SECOND_NS 1000000000

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
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

/* ---- a caller's ways ---- */

/* From the thread's own, which it is no longer. */
static void detach(zt_door *door, Caller *c)
{
    unlink_from(&c->link);
    door->inside -= c->inside;
    c->inside = false;
}

void zt_door_hang_up(zt_door *door, Caller *c)
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
        zt_door_hang_up(door, c);
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
            zt_door_hang_up(door, c);
    } else if (sent < 0 || last) {
        zt_door_hang_up(door, c);
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
        zt_door_hang_up(door, c);
        return;
    }
    Verdict verdict = judge(door, c, door->room, (size_t)size, &answer);
    if (verdict == ANSWER) {
        reply(door, c, answer, before);
    } else if (!keep(&c->call.data, &c->call.size, door->room, (size_t)size)) {
        zt_door_hang_up(door, c);
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

void *zt_door_work(void *arg)
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
                    zt_door_hang_up(door, c);
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
            zt_door_hang_up(door, c);
        listen_again(door);
    }
    return NULL;
}

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "door_parts.h"

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
    failed = pthread_create(&door->thread, NULL, zt_door_work, door);
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
            zt_door_hang_up(door, &door->callers[i]);
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

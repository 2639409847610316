/* The door's insides: what the host's side (door.c) and the thread (door_thread.c) both know. */
#ifndef ZT_DOOR_PARTS_H
#define ZT_DOOR_PARTS_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "door.h"

enum {
    CALLERS = DOOR_HERE + DOOR_LEAVING,
    ROOM = 4096, /* bytes of one read: an ordinary request that is not known leaves as a whole */
};

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

/* The thread, on a `zt_door`; ends when `stop` is set. */
void *zt_door_work(void *door);

/* Closes a connection of the thread's. */
void zt_door_hang_up(zt_door *door, Caller *c);

static inline void list_init(Link *list)
{
    list->next = list->prev = list;
}

static inline void unlink_from(Link *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
}

static inline void append(Link *list, Link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

static inline Caller *first(const Link *list)
{
    return list->next == list ? NULL : (Caller *)list->next;
}

static inline void poke(int fd)
{
    uint64_t one = 1;
    (void)!write(fd, &one, sizeof one);
}

/* With the lock held. */
static inline void drop(Answer *answer)
{
    if (answer && --answer->users == 0)
        free(answer);
}

/* Takes as long for every request of that size: what is remembered has a token in it, and nobody
 * shall find it byte by byte. */
static inline bool equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

static inline bool keep(uint8_t **copy, size_t *copy_size, const uint8_t *data, size_t size)
{
    *copy = malloc(size);
    if (!*copy)
        return false;
    memcpy(*copy, data, size);
    *copy_size = size;
    return true;
}

static inline void vacate(zt_door *door, Caller *c)
{
    c->call = (zt_caller){.fd = -1};
    c->inside = c->watched = false;
    append(&door->vacant, &c->link);
}

#endif

/* The local API's door: one thread that accepts connections and answers the requests it knows byte
 * for byte, and hands everything else over to whoever parses HTTP (the "host": the event loop).
 *
 *      accept ─► here ─► a known request, its answer fresh ─► answered, and here again
 *                  │  ─► a known request, its answer stale ─► waiting, until the host has made it
 *                  └──► anything else                      ─► leaving, until the host takes it
 *
 * A connection belongs to the thread until zt_door_take gives it away, with what was read of it. All
 * live in one table: when it is full because the host takes none, the thread accepts no more, and
 * clients wait in the listeners' backlog. Nothing is lost, and nothing grows.
 *
 * What both sides use is guarded by one lock, held for look-ups and never during a system call
 * other than those of the eventfds that wake the other side. An answer is counted by its users: the
 * table is one, the thread is another while it sends.
 *
 * All functions but those of the thread are for one caller at a time, the host.
 */
#ifndef ZT_DOOR_H
#define ZT_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DOOR_PATHS = 16,     /* that have answers */
    DOOR_KNOWN = 64,     /* requests that are remembered */
    DOOR_REQUEST = 1024, /* bytes of the longest of them */
    DOOR_HERE = 512,     /* connections that are answered here; others leave at once */
    DOOR_LEAVING = 64,   /* that can wait for the host beside those */
    DOOR_LISTENERS = 8,
};

typedef struct zt_door zt_door;

/* A connection that was given away. `data` and `rest` are the receiver's to free, or NULL. */
typedef struct {
    int fd;         /* non-blocking; the receiver's to close */
    bool last;      /* to be closed after `rest` */
    int requests;   /* answered here, that of `rest` too */
    uint8_t *data;  /* what was read and is not answered; only from clients on loopback */
    size_t size;
    uint8_t *rest;  /* the end of an answer, of which the socket took only the beginning */
    size_t rest_size;
} zt_caller;

typedef struct {
    uint64_t answered; /* requests, here */
    uint64_t waited;   /* of these, for an answer to be made */
    uint64_t left;     /* connections */
} zt_door_counters;

/* `idle_ns`: how long a connection may say nothing; `requests`: answered on one connection before it
 * is closed. NULL: no memory or descriptors, see errno. */
zt_door *zt_door_new(int64_t idle_ns, int requests);

/* Stops the thread. */
void zt_door_free(zt_door *door);

/* Starts the thread on listening, non-blocking sockets; they stay the caller's and have to outlive
 * zt_door_stop. Once only. 0 or an errno. */
int zt_door_start(zt_door *door, const int *listeners, int count);

/* Returns when the thread has ended and every connection that was not given away is closed. */
void zt_door_stop(zt_door *door);

/* Readable when there is something for zt_door_wanted or zt_door_take; the door's. */
int zt_door_event_fd(const zt_door *door);

/* Requests that equal this one are answered with what is published for `path` from now on. Longer
 * ones than DOOR_REQUEST are not remembered; one too many, and all others are forgotten. False: no
 * memory. */
bool zt_door_remember(zt_door *door, const void *request, size_t size, int path);

/* The whole answers for a path: an ordinary one, and the last of a connection. They are copied.
 * `until_ns` (CLOCK_MONOTONIC): from then on they have to be made anew. `ordinary` NULL: there is no
 * answer, and who asks until then leaves. False: no memory, and nothing has changed. */
bool zt_door_publish(zt_door *door, int path, const void *ordinary, size_t ordinary_size,
                     const void *last, size_t last_size, int64_t until_ns);

/* No answer is given any more, to requests that come from now on, before it is published anew. */
void zt_door_forget(zt_door *door);

/* If somebody waits: the paths (bits) that were asked for since they were published, else 0. Clears
 * the event. */
uint32_t zt_door_wanted(zt_door *door);

/* The next of the connections that leave; false: none. */
bool zt_door_take(zt_door *door, zt_caller *caller);

zt_door_counters zt_door_count(zt_door *door);

#endif

/* The bounded queue that carries punts from the data plane's threads to the control plane.
 *
 * Records are appended to one buffer under a mutex; the control plane takes the whole buffer away
 * at once, so that it parses without holding anything. Nothing is allocated before the first
 * record, so an idle queue costs a few dozen bytes. A full queue drops and counts. Records that
 * strangers or bulk traffic can cause may fill only half of it.
 */
#ifndef ZT_SWITCH_QUEUE_H
#define ZT_SWITCH_QUEUE_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "table_place.h"

/* What the control plane is told (docs/architecture.md, the punt kinds). */
enum {
    PUNT_HELLO = 1,
    PUNT_UNKNOWN,
    PUNT_TRUSTED,
    PUNT_PACKET,
    PUNT_RELAY,
    PUNT_FRAME,
    PUNT_INTRODUCE,
    PUNT_RECEIVED,
    PUNT_SEND,
    PUNT_DROPPED,
};

/* The fixed part of a record; `size` bytes of data follow, padded to 8. */
typedef struct {
    zt_place place; /* where the datagram came from; all zero for a frame */
    uint64_t address;
    uint64_t nwid;
    uint32_t size;
    uint8_t kind;
    uint8_t hops;
} zt_punt;

typedef struct {
    pthread_mutex_t lock;
    uint8_t *data;    /* owned; NULL while empty */
    size_t used, room, limit;
    uint64_t dropped; /* records that found the queue full */
    int wake_fd;      /* an eventfd written when the queue stops being empty, or -1 */
} zt_queue;

static inline void zt_queue_init(zt_queue *queue, size_t limit)
{
    memset(queue, 0, sizeof *queue);
    pthread_mutex_init(&queue->lock, NULL);
    queue->limit = limit;
    queue->wake_fd = -1;
}

static inline void zt_queue_free(zt_queue *queue)
{
    free(queue->data);
    pthread_mutex_destroy(&queue->lock);
}

/* Appends one record with the pieces as its data; false when there is no room for it. */
static inline bool zt_queue_put(zt_queue *queue, zt_punt *record, const struct iovec *pieces, int count)
{
    bool stranger = record->kind == PUNT_HELLO || record->kind == PUNT_UNKNOWN ||
                    record->kind == PUNT_RELAY || record->kind == PUNT_SEND ||
                    record->kind == PUNT_DROPPED;
    size_t size = 0, start;
    bool first;
    uint64_t one = 1;
    for (int i = 0; i < count; i++)
        size += pieces[i].iov_len;
    record->size = (uint32_t)size;
    size = (sizeof *record + size + 7) & ~(size_t)7;
    pthread_mutex_lock(&queue->lock);
    if (queue->used + size > (stranger ? queue->limit / 2 : queue->limit))
        goto full;
    if (queue->used + size > queue->room) {
        size_t room = queue->room ? queue->room * 2 : 2048;
        while (room < queue->used + size)
            room *= 2;
        uint8_t *moved = (uint8_t *)realloc(queue->data, room);
        if (!moved)
            goto full;
        queue->data = moved;
        queue->room = room;
    }
    start = queue->used;
    memcpy(queue->data + start, record, sizeof *record);
    start += sizeof *record;
    for (int i = 0; i < count; start += pieces[i].iov_len, i++)
        if (pieces[i].iov_len) /* an empty piece may have no address */
            memcpy(queue->data + start, pieces[i].iov_base, pieces[i].iov_len);
    first = queue->used == 0;
    queue->used += size;
    if (first && queue->wake_fd >= 0)
        (void)!write(queue->wake_fd, &one, sizeof one);
    pthread_mutex_unlock(&queue->lock);
    return true;
full:
    queue->dropped++;
    pthread_mutex_unlock(&queue->lock);
    return false;
}

/* Records lost so far. */
static inline uint64_t zt_queue_dropped(zt_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    uint64_t dropped = queue->dropped;
    pthread_mutex_unlock(&queue->lock);
    return dropped;
}

/* Takes all records: the buffer becomes the caller's to free; NULL when there are none. */
static inline uint8_t *zt_queue_take(zt_queue *queue, size_t *used)
{
    uint8_t *data;
    uint64_t count;
    pthread_mutex_lock(&queue->lock);
    data = queue->used ? queue->data : NULL;
    *used = queue->used;
    if (data) {
        queue->data = NULL;
        queue->used = queue->room = 0;
        if (queue->wake_fd >= 0)
            (void)!read(queue->wake_fd, &count, sizeof count);
    }
    pthread_mutex_unlock(&queue->lock);
    return data;
}

#endif

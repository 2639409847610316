#include "switch_lane.h"

#include <stdlib.h>

#include "bytes.h"
#include "salsa20.h"

void zt_lane_init(zt_lane *lane, const uint8_t seed[32])
{
    memset(lane, 0, sizeof *lane);
    zt_salsa20_init(lane->id_state, seed, (const uint8_t[8]){0}, 0);
    lane->id_used = LANE_IDS;
    lane->filter_random = zt_lane_id(lane) | 1;
}

int zt_lane_allocate(zt_lane *lane, uint32_t arena, uint32_t datagrams, uint32_t frames)
{
    lane->arena_room = arena;
    lane->datagram_room = lane->out_room = datagrams;
    lane->frame_room = frames;
    lane->arena = aligned_alloc(64, (arena + 63) & ~63u);
    lane->datagrams = malloc(datagrams * sizeof *lane->datagrams);
    lane->outs = malloc(datagrams * sizeof *lane->outs);
    lane->frames = malloc(frames * sizeof *lane->frames);
    return lane->arena && lane->datagrams && lane->outs && lane->frames ? 0 : -1;
}

void zt_lane_borrow(zt_lane *lane, const zt_lane *owner)
{
    lane->arena_room = owner->arena_room;
    lane->datagram_room = lane->out_room = owner->datagram_room;
    lane->frame_room = owner->frame_room;
    lane->arena = owner->arena;
    lane->datagrams = owner->datagrams;
    lane->outs = owner->outs;
    lane->frames = owner->frames;
}

void zt_lane_wipe(zt_lane *lane)
{
    zt_wipe(lane, sizeof *lane);
}

void zt_lane_free(zt_lane *lane)
{
    free(lane->arena);
    free(lane->datagrams);
    free(lane->outs);
    free(lane->frames);
    zt_lane_wipe(lane);
}

uint64_t zt_lane_new_ids(zt_lane *lane)
{
    zt_kernels_get()->salsa20(lane->id_state, 20, (uint8_t *)lane->ids, NULL, sizeof lane->ids);
    lane->id_used = 1;
    return lane->ids[0];
}

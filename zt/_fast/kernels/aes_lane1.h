/* A vec of one block, for aes_vector.h: everything is what it is for blocks. */

#define LANES 1

typedef zt_block vec;

INLINE vec load(const void *p) { return block_load(p); }
INLINE void store(void *p, vec x) { block_store(p, x); }
INLINE vec broadcast(zt_block x) { return x; }
INLINE vec reverse_blocks(vec x) { return block_reverse(x); }
INLINE vec aes_round(vec x, vec key) { return block_round(x, key); }
INLINE vec aes_last(vec x, vec key) { return block_last(x, key); }
INLINE vec clmul_low(vec a, vec b) { return block_clmul_low(a, b); }
INLINE vec clmul_high(vec a, vec b) { return block_clmul_high(a, b); }
INLINE vec low_halves(vec a, vec b) { return ZT_SHUFFLE(vec, a, b, 0, 2); }
INLINE vec high_halves(vec a, vec b) { return ZT_SHUFFLE(vec, a, b, 1, 3); }
INLINE vec lane_numbers(void) { return (vec){0, 0}; }
INLINE zt_block fold(vec x) { return x; }
INLINE vec lowest(zt_block x) { return x; }

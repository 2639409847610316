/* Parts of a group by way of memory, for levels without masked loads; see aes_vector.h, from which
 * this is included. */

INLINE void copy_bytes(uint8_t *dst, const uint8_t *src, size_t n)
{
    size_t done = 0;
    for (; done + 16 <= n; done += 16)
        block_store(dst + done, block_load(src + done));
    if (n & 8) {
        store64(dst + done, load64(src + done));
        done += 8;
    }
    if (n & 4) {
        store32(dst + done, load32(src + done));
        done += 4;
    }
    for (; done < n; done++)
        dst[done] = src[done];
}

INLINE void load_part(vec x[VECS], const uint8_t *p, size_t n)
{
    uint8_t group[GROUP];
    UNROLLED for (int i = 0; i < GROUP; i += 16)
        block_store(group + i, (zt_block){0, 0});
    copy_bytes(group, p, n);
    UNROLLED for (int i = 0; i < VECS; i++)
        x[i] = load(group + STEP * i);
}

INLINE void store_part(uint8_t *p, const vec x[VECS], size_t n)
{
    uint8_t group[GROUP];
    UNROLLED for (int i = 0; i < VECS; i++)
        store(group + STEP * i, x[i]);
    copy_bytes(p, group, n);
}

INLINE void clear_after(vec x[VECS], size_t n)
{
    uint8_t group[GROUP];
    UNROLLED for (int i = 0; i < VECS; i++)
        store(group + STEP * i, x[i]);
    load_part(x, group, n);
}

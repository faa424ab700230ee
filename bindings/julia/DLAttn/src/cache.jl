# What a decoding step does beside attention: new keys and values into a cache, rotary positions.

"""
    DLAttn.kv_append!(k_cache, v_cache, k_new, v_new, seqlens; block_table=nothing, batch_index=nothing, layout=:dhsb)

Copies new keys and values behind the tokens of a cache, in place: token s of sequence b (from 0) becomes token
`seqlens[b]` + s. `seqlens` is not changed.

- `k_new` (D, G, S, B), `v_new` (E, G, S, B); `k_cache` (D, G, capacity, B), `v_cache` (E, G, capacity, B).
- `batch_index`: integers (B) from 0, the cache row of each sequence; the cache may then have any number of rows.
- `block_table`: integers (pages, B) from 0, as `attention` takes it: the caches are pages (D, G, page, P).

Throws [`DLAttnError`](@ref), on the CPU also when a token has no place; on CUDA it is dropped.
"""
function kv_append!(k_cache, v_cache, k_new, v_new, seqlens; block_table=nothing, batch_index=nothing, layout=:dhsb)
    loans, c = Any[], dlattn_cache()
    for (name, array) in ((:k_new, k_new), (:v_new, v_new), (:seqlens, seqlens), (:block_table, block_table),
                          (:batch_index, batch_index), (:k_cache, k_cache), (:v_cache, v_cache))
        setproperty!(c, name, borrow!(loans, name, array))
    end
    c.layout = layout_code(layout)
    GC.@preserve loans check(dlattn_kv_append(c, execution(root(k_new), 0)))
    return k_cache, v_cache
end

"""
    DLAttn.rotary(x, cosines, sines; starts=nothing, interleaved=false, inverse=false, layout=:dhsb, out=similar(x))

Rotary position embedding (Su et al., 2021): pairs of the first R elements of each head are rotated by the angles of their
token's position, (x, y) -> (x cos - y sin, x sin + y cos); the rest is copied.

- `x` (D, H, S, B); `cosines`, `sines` (R/2, positions), of the type of x or Float32.
- `starts`: integers (B), the position of each sequence's first token, from 0.
- `interleaved`: pairs are elements (2r-1, 2r) instead of (r, r + R/2).
- `inverse`: rotate back. That is the backward: the gradient of x is the gradient of the result, rotated back.
- `out`: array to write; x itself rotates in place.
"""
function rotary(x, cosines, sines; starts=nothing, interleaved::Bool=false, inverse::Bool=false, layout=:dhsb,
                out=similar(root(x), eltype(x), size(x)))
    loans, r = Any[], dlattn_rotation()
    for (name, array) in ((:x, x), (:cosines, cosines), (:sines, sines), (:starts, starts), (:out, out))
        setproperty!(r, name, borrow!(loans, name, array))
    end
    r.layout, r.interleaved, r.inverse = layout_code(layout), interleaved, inverse
    GC.@preserve loans check(dlattn_rotary(r, execution(root(x), 0)))
    return out
end

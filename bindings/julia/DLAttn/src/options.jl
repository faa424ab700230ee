# The keyword arguments that attention, its backward and the queries share, as fields of the C struct.

"""
The options of `attention`, `attention_backward`, `prepare`, `explain` and `dropout_mask!`. Letters: B batch, H query
heads, G key/value heads, M queries, N keys, D and E head sizes. Arrays have any strides.

| keyword | meaning |
|---|---|
| `layout` | `:dhsb`: arrays (D, heads, tokens, B), the default; `:dshb`: (D, tokens, heads, B). Packed: without B |
| `scale` | instead of 1/sqrt(D) |
| `causal` | query i sees keys up to its own position; the last query stands at the last key |
| `top_left` | query i has position i, also when M differs from N |
| `window` | `(left, right)`: keys from position i-left to i+right; `nothing`: unlimited. An integer w: `(w, w)` |
| `block_window` | `(size, count)`: the query's block of `size` keys and the count-1 before it |
| `bias` | floats, rank 1 to 4, left-aligned to (N, M, H, B); an extent of 1 broadcasts |
| `mask` | Bool or UInt8, shapes as bias; nonzero keeps. A BitArray is converted |
| `softcap` | softcap * tanh(score / softcap) |
| `alibi_slopes` | floats (H) or (H, B) |
| `sinks` | floats (H): one more score per row, which has no value |
| `segments` | integers, `((M, B), (N, B))`, or one array for both sides |
| `dropout`, `seed`, `offset` | probability, and the 64-bit numbers that choose its bits |
| `rng_state` | (2) 64-bit integers (seed, offset) or (4) UInt32: overrides both |
| `positions` | `(q, k)`: position of the first query and key, integers or arrays (B) |
| `cu_seqlens_q`, `cu_seqlens_k` | integers (B+1), from 0: that side is packed, (D, heads, tokens) |
| `max_seqlen_q`, `max_seqlen_k` | packed: upper bounds on the lengths |
| `seqlens_q`, `seqlens_k` | integers (B): the used length of each sequence |
| `block_table` | integers (pages, B): k and v are paged |
| `deterministic`, `allow_tf32` | for GPUs |
| `num_threads` | CPU threads; 0: what the machine allows |
"""
const OPTIONS = (:layout, :scale, :causal, :top_left, :window, :block_window, :bias, :mask, :softcap, :alibi_slopes, :sinks,
                 :segments, :dropout, :seed, :offset, :rng_state, :positions, :cu_seqlens_q, :cu_seqlens_k, :max_seqlen_q,
                 :max_seqlen_k, :seqlens_q, :seqlens_k, :block_table, :deterministic, :allow_tf32, :num_threads)

const TENSORS = (:bias, :mask, :alibi_slopes, :sinks, :rng_state, :cu_seqlens_q, :cu_seqlens_k, :seqlens_q, :seqlens_k,
                 :block_table)
const NUMBERS = (:softcap, :dropout, :seed, :offset, :max_seqlen_q, :max_seqlen_k)
const FLAGS = (causal=DLATTN_CAUSAL, top_left=DLATTN_TOP_LEFT, deterministic=DLATTN_DETERMINISTIC,
               allow_tf32=DLATTN_ALLOW_TF32)
const LAYOUTS_BY_NAME = (dhsb=DLATTN_BSHD, dshb=DLATTN_BHSD)

function layout_code(name)
    name isa Symbol && haskey(LAYOUTS_BY_NAME, name) || argument_error("layout is $(repr(name)); expected :dhsb or :dshb")
    return LAYOUTS_BY_NAME[name]
end

"A number as the type of a C field, or the library's kind of sentence."
function number(::Type{T}, name, value) where {T}
    value isa Real || argument_error("$name is $(repr(value)); expected a number")
    try
        return convert(T, value)
    catch
        argument_error("$name is $value, which is no $T")
    end
end

function pair(name, value)
    value isa Union{Tuple,AbstractVector} && length(value) == 2 || argument_error("$name is $(repr(value)); expected a pair")
    return value[1], value[2]
end

raise!(a::dlattn_attention, bit) = (a.flags |= bit % UInt32)

"Sets one option. What it borrows goes to `loans`."
function set!(a::dlattn_attention, loans::Vector{Any}, name::Symbol, value)
    if haskey(FLAGS, name)
        value::Bool && raise!(a, FLAGS[name])
    elseif value === nothing
    elseif name in TENSORS
        setproperty!(a, name, borrow!(loans, name, value))
    elseif name in NUMBERS
        setproperty!(a, name, number(fieldtype(dlattn_attention, name), name, value))
    elseif name === :layout
        a.layout = layout_code(value)
    elseif name === :scale
        a.scale = number(Float64, name, value)
        raise!(a, DLATTN_SCALE)
    elseif name === :window
        left, right = value isa Integer ? (value, value) : pair(name, value)
        a.window_left = number(Int64, name, something(left, -1))
        a.window_right = number(Int64, name, something(right, -1))
        raise!(a, DLATTN_WINDOW)
    elseif name === :block_window
        size, count = pair(name, value)
        a.block_size, a.block_count = number(Int64, name, size), number(Int64, name, count)
        raise!(a, DLATTN_BLOCK_WINDOW)
    elseif name === :segments
        q, k = value isa Tuple ? pair(name, value) : (value, value)
        a.q_segments, a.kv_segments = borrow!(loans, :q_segments, q), borrow!(loans, :kv_segments, k)
    elseif name === :positions
        set_positions!(a, loans, pair(name, value)...)
    else
        throw(ArgumentError("unknown option $name; expected one of $(join(OPTIONS, ", "))"))
    end
    return nothing
end

function set_positions!(a::dlattn_attention, loans, q, k)
    q isa AbstractArray ? (a.q_starts = borrow!(loans, :q_starts, q)) : (a.q_start = number(Int64, :q_start, something(q, 0)))
    k isa AbstractArray ? (a.k_starts = borrow!(loans, :k_starts, k)) : (a.k_start = number(Int64, :k_start, something(k, 0)))
    raise!(a, DLATTN_POSITIONS)
end

# The calls: attention and its backward, merge, dropout_mask!, prepare, explain, set_option, version.

"One call: the C structs and all that they point to."
struct Call
    attention::dlattn_attention
    exec::dlattn_exec
    loans::Vector{Any}
    lead::AbstractArray # its device and stream are the call's, and new arrays are like it
end

function begin_call(q, k, v, options)
    loans, a = Any[], dlattn_attention()
    a.q, a.k, a.v = borrow!(loans, :q, q), borrow!(loans, :k, k), borrow!(loans, :v, v)
    threads = 0
    for (name, value) in pairs(options)
        name === :num_threads ? (threads = value) : set!(a, loans, name, value)
    end
    return Call(a, execution(root(q), threads), loans, q)
end

function execution(lead, threads)
    exec = dlattn_exec()
    exec.stream, exec.num_threads = stream(lead), number(Int32, :num_threads, threads)
    return exec
end

"Runs f(structs..., exec) while the loans are held; `workspace` says how much of it the call would like on a device."
function run(call::Call, f, workspace, result)
    lead, loans = root(call.lead), call.loans
    GC.@preserve loans begin
        memory = nothing
        if device(lead).device_type != kDLCPU
            bytes = Ref{UInt64}(0)
            check(workspace(call.attention, result, call.exec, bytes, C_NULL))
            memory = bytes[] == 0 ? nothing : scratch(lead, bytes[])
            if memory !== nothing
                call.exec.workspace, call.exec.workspace_bytes = address(memory), bytes[]
            end
        end
        status = f(call.attention, result, call.exec)
        release(memory)
        check(status)
    end
end

# ---- shapes of results: those of q, in Julia's order ------------------------------------------------------------------

out_size(q, v) = (size(v, 1), size(q)[2:end]...)

"(M, H, B), packed (T, H): the size of q without D, in layout :dshb."
function lse_size(q, layout)
    rest = size(q)[2:end]
    (layout_code(layout) == DLATTN_BHSD || length(rest) < 2) && return rest
    return (rest[2], rest[1], rest[3:end]...)
end

layout_of(options) = something(get(options, :layout, nothing), :dhsb)

# ---- attention ----------------------------------------------------------------------------------------------------------

"""
    attention(q, k, v, [bias, [sinks]]; return_lse=false, out=nothing, lse=nothing, out_type=eltype(q), options...)

Exact attention, softmax(scale * q k' + ...) v, without ever storing the N x M scores.

- `q` (D, H, M, B), `k` (D, G, N, B), `v` (E, G, N, B), or as `layout` says: `Array`s, views, permuted arrays, of Float16,
  Float32, Float64 or BFloat16; with CUDA loaded also `CuArray`s, on the task's stream. Nothing is copied. G divides H.
- Options: `?DLAttn.OPTIONS`. `bias` and `sinks` may be given by position too; automatic differentiation sees them only
  there.
- `out`, `lse`: arrays to write instead of new ones. `out_type=Float32` gives 16-bit inputs an unrounded result.

Returns `out` (E, H, M, B), and with `return_lse=true` `(out, lse)`; `lse` (M, H, B) is the logarithm of each row's sum of
exp(score), -Inf for a row that sees nothing (whose `out` is 0). Throws [`DLAttnError`](@ref).
"""
function attention(q, k, v; return_lse::Bool=false, out=nothing, lse=nothing, out_type=eltype(q), options...)
    call, result = begin_call(q, k, v, options), dlattn_outputs()
    out = out === nothing ? similar(root(q), out_type, out_size(q, v)) : out
    result.out = borrow!(call.loans, :out, out)
    if return_lse || lse !== nothing
        lse = lse === nothing ? similar(root(q), lse_type(eltype(q)), lse_size(q, layout_of(options))) : lse
        result.lse = borrow!(call.loans, :lse, lse)
    end
    run(call, dlattn_forward, dlattn_forward_workspace, result)
    return return_lse ? (out, lse) : out
end

attention(q, k, v, bias; options...) = attention(q, k, v; bias=bias, options...)
attention(q, k, v, bias, sinks; options...) = attention(q, k, v; bias=bias, sinks=sinks, options...)

const GRADIENTS = (:dq, :dk, :dv, :dbias, :dsinks)

"""
    attention_backward(dout, q, k, v, out, lse; dlse=nothing, grads=(:dq, :dk, :dv), grad_type=nothing,
                       dq=nothing, dk=nothing, dv=nothing, dbias=nothing, dsinks=nothing, options...)

The gradients of [`attention`](@ref), recomputed from `out` and `lse` in O(M + N) memory. Options as in the forward.

- `dout`: gradient of `out`, with the element type of `q`. `dlse`: gradient of `lse`; nothing: zero.
- `grads`: which gradients are wanted, some of :dq, :dk, :dv, :dbias, :dsinks; `dq` and so on: arrays to write instead of
  new ones; a given one is wanted. `grad_type=Float32`: new ones unrounded.

Returns a named tuple (dq, dk, dv, dbias, dsinks), with nothing where a gradient was not wanted. `dbias` has the size of
`bias`, summed over what was broadcast. For one part of a split problem pass that part's arrays with the merged `out` and
`lse`; the parts' dq add up. Throws [`DLAttnError`](@ref).
"""
function attention_backward(dout, q, k, v, out, lse; dlse=nothing, grads=(:dq, :dk, :dv), grad_type=nothing, dq=nothing,
                            dk=nothing, dv=nothing, dbias=nothing, dsinks=nothing, options...)
    all(name -> name in GRADIENTS, grads) || throw(ArgumentError("grads is $grads; expected some of $GRADIENTS"))
    call, struct_ = begin_call(q, k, v, options), dlattn_gradients()
    for (name, array) in ((:out, out), (:lse, lse), (:dout, dout), (:dlse, dlse))
        setproperty!(struct_, name, borrow!(call.loans, name, array))
    end
    parents = (dq=q, dk=k, dv=v, dbias=get(options, :bias, nothing), dsinks=get(options, :sinks, nothing))
    given = (dq=dq, dk=dk, dv=dv, dbias=dbias, dsinks=dsinks)
    results = map(GRADIENTS) do name
        given[name] === nothing && !(name in grads) && return nothing
        # without a parent any array will do: the library says what is missing
        parent = something(parents[name], q)
        result = given[name] === nothing ? similar(root(parent), something(grad_type, eltype(parent)), size(parent)) : given[name]
        setproperty!(struct_, name, borrow!(call.loans, name, result))
        return result
    end
    run(call, dlattn_backward, dlattn_backward_workspace, struct_)
    return NamedTuple{GRADIENTS}(results)
end

"""
    DLAttn.merge(outs, lses; layout=:dhsb, out_type=eltype(outs[1]))

Joins the results of a problem that was split over its keys: `(out, lse)` with lse = log(sum exp(lse_p)) and
out = sum exp(lse_p - lse) * out_p. Pass sinks to exactly one part.
"""
function merge(outs, lses; layout=:dhsb, out_type=eltype(first(outs)))
    length(outs) == length(lses) && !isempty(outs) ||
        argument_error("$(length(outs)) outs and $(length(lses)) lses; expected as many of each, at least one")
    loans, parts, result = Any[], dlattn_parts(), dlattn_outputs()
    pointers = [borrow!(loans, "outs[$i]", x) for (i, x) in enumerate(outs)],
               [borrow!(loans, "lses[$i]", x) for (i, x) in enumerate(lses)]
    lead = root(first(outs))
    out, lse = similar(lead, out_type, size(first(outs))), similar(lead, eltype(first(lses)), size(first(lses)))
    result.out, result.lse = borrow!(loans, :out, out), borrow!(loans, :lse, lse)
    parts.out, parts.lse = pointer(pointers[1]), pointer(pointers[2])
    parts.count, parts.layout = length(outs), layout_code(layout)
    GC.@preserve loans pointers check(dlattn_merge(parts, result, execution(lead, 0)))
    return out, lse
end

"""
    DLAttn.dropout_mask!(keep, q, k; options...)

Writes which scores dropout keeps: `keep` is (N, M, H, B), Bool or UInt8.
"""
function dropout_mask!(keep, q, k; options...)
    call = begin_call(q, k, k, options)
    GC.@preserve call check(dlattn_dropout_mask(call.attention, borrow!(call.loans, :keep, keep), call.exec))
    return keep
end

# ---- queries --------------------------------------------------------------------------------------------------------------

"A call with the results of the forward, or of a backward that gives everything, as shapes without data."
function queried(q, k, v, backward, options)
    call, out, grads = begin_call(q, k, v, options), dlattn_outputs(), dlattn_gradients()
    outline(x, type=eltype(x), extents=size(x)) = outline!(call.loans, q, type, extents)
    out.out = outline(q, eltype(q), out_size(q, v))
    out.lse = outline(q, lse_type(eltype(q)), lse_size(q, layout_of(options)))
    backward || return call, out, C_NULL
    grads.out, grads.lse, grads.dout = out.out, out.lse, out.out
    grads.dq, grads.dk, grads.dv = outline(q), outline(k), outline(v)
    for (name, parent) in ((:dbias, :bias), (:dsinks, :sinks))
        x = get(options, parent, nothing)
        x === nothing || setproperty!(grads, name, outline(x))
    end
    return call, C_NULL, grads
end

"""
    DLAttn.prepare(q, k, v; backward=false, options...)

Makes the first call of such a problem as fast as the next: compiles and loads kernels, starts threads.
"""
function prepare(q, k, v; backward::Bool=false, options...)
    call, out, grads = queried(q, k, v, backward, options)
    GC.@preserve call check(dlattn_prepare(call.attention, out, grads, call.exec))
end

"""
    DLAttn.explain([q, k, v; backward=false, options...])

What a call would do, in words: the problem as understood, the kernel chosen, each backend's reason for refusing. Without
arguments: the library and the machine.
"""
function explain(q, k, v; backward::Bool=false, options...)
    call, out, grads = queried(q, k, v, backward, options)
    GC.@preserve call told((text, bytes) -> dlattn_explain(call.attention, out, grads, call.exec, text, bytes))
end
explain() = told((text, bytes) -> dlattn_explain(C_NULL, C_NULL, C_NULL, C_NULL, text, bytes))

"The text that f writes, however long; its status says no more than the text."
function told(f)
    buffer = zeros(UInt8, 1 << 14)
    while true
        f(buffer, length(buffer))
        stop = something(findfirst(iszero, buffer), 1)
        stop < length(buffer) && return String(buffer[1:stop-1])
        buffer = zeros(UInt8, 2 * length(buffer))
    end
end

"""
    DLAttn.set_option(name, value)

Process-wide settings, as `dlattn.h` lists them; `nothing` restores the default.
"""
set_option(name, value) = check(dlattn_set_option(name, value === nothing ? C_NULL : string(value)))

"The version of the C library."
function version()
    number = dlattn_version()
    return VersionNumber(number ÷ 10000, number ÷ 100 % 100, number % 100)
end

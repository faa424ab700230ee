# Attention as the header's formulas, in Float64 loops over arrays (D, H, M, B), with a bound on what rounding may do.
#
# The bound is the standard one (Higham, Accuracy and Stability, 2002, section 3.1): a sum of n terms with unit roundoff u
# is off by at most n*u times the sum of the terms' absolute values, and exp turns an absolute error of the score into a
# relative error of p. So each bound is u * (operations on the path) * (1 + largest |score|) * (the formula with absolute
# values) plus one rounding; twice that, since for Float64 this reference is no better than the library.

unit(::Type{T}) where {T} = Float64(eps(T)) / 2
row_unit(::Type{T}) where {T} = T === Float64 ? unit(Float64) : unit(Float32)

struct Bounded
    value::Array{Float64}
    bound::Array{Float64}
end
Bounded(dims...) = Bounded(zeros(dims), zeros(dims))

function add!(x::Bounded, value, bound, at...)
    x.value[at...] += value
    x.bound[at...] += bound
end

"Whether |found - value| <= 2 * (bound + one rounding) everywhere, infinities equal."
function agrees(x::Bounded, found, u)
    size(found) == size(x.value) || return false
    tiny = eltype(found) === Float16 ? 2.0^-25 : Float64(floatmin(Float32))
    return all(zip(found, x.value, x.bound)) do (f, value, bound)
        Float64(f) == value || abs(Float64(f) - value) <= 2 * (bound + u * abs(value)) + tiny
    end
end

"Whether query i sees key j, counted from 1."
function sees(i, j, M, N, causal, window)
    i += N - M
    left, right = window === nothing ? (-1, -1) : window
    return (!causal || j <= i) && (left < 0 || j >= i - left) && (right < 0 || j <= i + right)
end

"An index into an array whose extents of 1 broadcast."
clip(at, dims) = map(min, at, dims)

"out, lse and the gradients for dout and dlse, of inputs with element type T."
function reference(::Type{T}, q, k, v, dout, dlse; scale=nothing, causal=false, window=nothing, bias=nothing,
                   sinks=nothing) where {T}
    u, row = unit(T), row_unit(T)
    q, k, v, dout, dlse = map(x -> Float64.(x), (q, k, v, dout, dlse))
    (D, H, M, B), (E, G, N, _) = size(q), size(v)
    scale = scale === nothing ? 1 / sqrt(D) : scale
    r = (out=Bounded(E, H, M, B), lse=Bounded(M, H, B), dq=Bounded(D, H, M, B), dk=Bounded(D, G, N, B),
         dv=Bounded(E, G, N, B), dbias=Bounded((bias === nothing ? (1, 1, 1, 1) : size(bias))...), dsinks=Bounded(H))
    for b in 1:B, h in 1:H, i in 1:M
        g = (h - 1) ÷ (H ÷ G) + 1
        at(j) = clip((j, i, h, b), size(bias))
        s, largest = fill(-Inf, N), 0.0
        for j in 1:N
            sees(i, j, M, N, causal, window) || continue
            products = scale .* q[:, h, i, b] .* k[:, g, j, b]
            term = bias === nothing ? 0.0 : Float64(bias[at(j)...])
            s[j] = sum(products) + term
            largest = max(largest, sum(abs, products) + abs(term))
        end
        sink = sinks === nothing ? -Inf : Float64(sinks[h])
        top = max(reduce(max, s; init=-Inf), sink)
        if top == -Inf
            r.lse.value[i, h, b] = -Inf
            continue
        end
        lse = top + log(sum(exp.(s .- top)) + exp(sink - top))
        p = exp.(s .- lse)
        forward = row * (D + N + 16) * (1 + largest)
        add!(r.lse, lse, forward + row * abs(lse), i, h, b)
        values = v[:, g, :, b]
        out, size_of_out = values * p, abs.(values) * p
        add!(r.out, out, (forward + 2u) .* size_of_out, :, h, i, b)

        # delta is made from the rounded out, so the bound of out goes into that of delta
        d = dout[:, h, i, b]
        delta, delta_size = sum(d .* out) - dlse[i, h, b], sum(abs, d .* out) + abs(dlse[i, h, b])
        delta_bound = sum(abs.(d) .* size_of_out) * (forward + 4u)
        backward = row * (2D + 2E + N + 16 + N + M * H * B) * (1 + largest + abs(lse)) + 4u
        weight = exp(sink - lse)
        add!(r.dsinks, -weight * delta, weight * (delta_size * backward + delta_bound), h)
        for j in 1:N
            ds = p[j] * (sum(d .* values[:, j]) - delta)
            ds_bound = p[j] * ((sum(abs, d .* values[:, j]) + delta_size) * backward + delta_bound)
            bias === nothing || add!(r.dbias, ds, ds_bound, at(j)...)
            add!(r.dq, scale * ds * k[:, g, j, b], abs.(scale * ds_bound * k[:, g, j, b]), :, h, i, b)
            add!(r.dk, scale * ds * q[:, h, i, b], abs.(scale * ds_bound * q[:, h, i, b]), :, g, j, b)
            add!(r.dv, p[j] * d, p[j] * backward * abs.(d), :, g, j, b)
        end
    end
    return r
end

# The gradients of attention and rotary for Zygote, Flux, Lux and everything else that knows ChainRules.
module DLAttnChainRulesCoreExt

using DLAttn: DLAttn, attention, attention_backward, rotary
using ChainRulesCore: ChainRulesCore, AbstractZero, NoTangent, ZeroTangent, unthunk

"A cotangent as an array that the library takes; nothing for zero."
function cotangent(x, like, type)
    x = unthunk(x)
    (x === nothing || x isa AbstractZero) && return nothing
    DLAttn.is_strided(x) && eltype(x) === type && return x
    return copyto!(similar(like, type), x) # a constant of sum's pullback, another element type
end

function ChainRulesCore.rrule(::typeof(attention), q, k, v, terms...; return_lse::Bool=false, out_type=eltype(q), options...)
    length(terms) <= 2 || throw(MethodError(attention, (q, k, v, terms...)))
    out, lse = attention(q, k, v, terms...; return_lse=true, out_type=out_type, options...)
    given = NamedTuple{(:bias, :sinks)[1:length(terms)]}(terms)
    wanted = (:dq, :dk, :dv, (Symbol(:d, name) for name in keys(given) if given[name] !== nothing)...)
    function attention_pullback(Δ)
        Δ = unthunk(Δ)
        parts = return_lse && !(Δ isa AbstractZero) ? (Δ[1], Δ[2]) : (Δ, nothing)
        dout, dlse = cotangent(parts[1], out, eltype(q)), cotangent(parts[2], lse, eltype(lse))
        dout === nothing && dlse === nothing && return (NoTangent(), map(_ -> ZeroTangent(), (q, k, v, terms...))...)
        dout = dout === nothing ? fill!(similar(out, eltype(q)), 0) : dout
        g = attention_backward(dout, q, k, v, out, lse; dlse=dlse, grads=wanted, options..., given...)
        of_terms = map(name -> given[name] === nothing ? NoTangent() : g[Symbol(:d, name)], keys(given))
        return (NoTangent(), g.dq, g.dk, g.dv, of_terms...)
    end
    return (return_lse ? (out, lse) : out), attention_pullback
end

"A rotation's pullback is the rotation back; cosines and sines are constants."
function ChainRulesCore.rrule(::typeof(rotary), x, cosines, sines; inverse::Bool=false, options...)
    out = rotary(x, cosines, sines; inverse=inverse, options...)
    function rotary_pullback(Δ)
        dout = cotangent(Δ, out, eltype(x))
        dx = dout === nothing ? ZeroTangent() : rotary(dout, cosines, sines; inverse=!inverse, options...)
        return (NoTangent(), dx, NoTangent(), NoTangent())
    end
    return out, rotary_pullback
end

end

# The gradient of attention through ChainRulesCore.

"A constant array without memory, as pullbacks of sums hand over."
struct Ones{N} <: AbstractArray{Float64,N}
    dims::NTuple{N,Int}
end
Base.size(x::Ones) = x.dims
Base.getindex(::Ones{N}, ::Vararg{Int,N}) where {N} = 1.0

@testset "rrule" begin
    q, k, v = randn(Float32, 8, 4, 5, 2), randn(Float32, 8, 2, 7, 2), randn(Float32, 6, 2, 7, 2)
    bias, sinks = randn(Float32, 7, 1, 4), randn(Float32, 4)
    options = (causal=true, window=(4, 0))
    out, lse = attention(q, k, v, bias, sinks; return_lse=true, options...)
    dout, dlse = randn(Float32, size(out)), randn(Float32, size(lse))
    backward(dout, dlse, grads; more...) =
        collect(filter(!isnothing, values(attention_backward(dout, q, k, v, out, lse; dlse=dlse, grads=grads,
                                                             bias=bias, sinks=sinks, options..., more...))))

    value, pullback = rrule(attention, q, k, v, bias, sinks; return_lse=true, options...)
    @test value == (out, lse)
    @test collect(pullback((dout, dlse))) == [NoTangent(); backward(dout, dlse, DLAttn.GRADIENTS)]
    @test collect(pullback(Thunk(() -> (dout, ZeroTangent())))) == [NoTangent(); backward(dout, nothing, DLAttn.GRADIENTS)]
    @test collect(pullback((ZeroTangent(), dlse))) == [NoTangent(); backward(zero(out), dlse, DLAttn.GRADIENTS)]

    value, pullback = rrule(attention, q, k, v, bias; sinks=sinks, options...)
    @test value == out
    @test collect(pullback(dout)) == [NoTangent(); backward(dout, nothing, (:dq, :dk, :dv, :dbias))]
    @test pullback(Ones(size(out))) == pullback(ones(Float32, size(out)))
    @test pullback(Float64.(dout)) == pullback(dout)
    @test collect(pullback(ZeroTangent())) == [NoTangent(); fill(ZeroTangent(), 4)]

    _, pullback = rrule(attention, q, k, v; bias=bias, sinks=sinks, options...) # keywords get no gradient
    @test collect(pullback(dout)) == [NoTangent(); backward(dout, nothing, (:dq, :dk, :dv))]
end

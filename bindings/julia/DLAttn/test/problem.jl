# One random problem, its results and gradients against the plain formula in Float64; arrays of any kind.

random(::Type{T}, dims...) where {T} = T.(2 .* rand(dims...) .- 1)

"Sizes (B, M, N, H, G, D, E). to: from an Array to the kind of array that is tested."
function check_problem(::Type{T}, (B, M, N, H, G, D, E); bias=nothing, sinks=false, to=identity, options...) where {T}
    q, k, v, dout = random(T, D, H, M, B), random(T, D, G, N, B), random(T, E, G, N, B), random(T, E, H, M, B)
    dlse = random(DLAttn.lse_type(T), M, H, B)
    terms = (; (bias === nothing ? () : (:bias => random(T, bias...),))..., (sinks ? (:sinks => random(T, H),) : ())...)
    given = map(to, terms)
    Q, K, V = to(q), to(k), to(v)
    out, lse = attention(Q, K, V; return_lse=true, given..., options...)
    wanted = (:dq, :dk, :dv, (Symbol(:d, name) for name in keys(terms))...)
    g = attention_backward(to(dout), Q, K, V, out, lse; dlse=to(dlse), grads=wanted, given..., options...)
    r = reference(T, q, k, v, dout, dlse; terms..., options...)
    @test typeof(out) === typeof(Q) && eltype(lse) === DLAttn.lse_type(T)
    @test agrees(r.out, Array(out), unit(T))
    @test agrees(r.lse, Array(lse), row_unit(T))
    for name in DLAttn.GRADIENTS
        @test (g[name] === nothing) == !(name in wanted)
        g[name] === nothing || @test agrees(r[name], Array(g[name]), unit(T))
    end
end

"The code of the error that f throws."
code(f) = try f(); 0 catch e; e isa DLAttnError ? e.code : rethrow() end

# Arrays without copies, errors, queries, the raw layer: everything about a call but its values.

"The DLTensor that an array becomes, with its shape and strides."
function lent(x)
    loans = Any[]
    GC.@preserve loans begin
        t = unsafe_load(DLAttn.borrow!(loans, :x, x))
        numbers(p) = [unsafe_load(p, i) for i in 1:t.ndim]
        return t.data, numbers(t.shape), numbers(t.strides), t.dtype
    end
end

@testset "arrays are not copied" begin
    x = rand(Float32, 8, 6, 4, 2)
    at(i...) = Ptr{Cvoid}(UInt(pointer(x)) + 4 * (LinearIndices(x)[i...] - 1))
    @test lent(x) == (at(1, 1, 1, 1), [2, 4, 6, 8], [192, 48, 8, 1], DLAttn.DLDataType(2, 32, 1))
    @test lent(view(x, :, 2:3, 4:-2:1, :))[1:3] == (at(1, 2, 4, 1), [2, 2, 2, 8], [192, -96, 8, 1])
    permuted = PermutedDimsArray(x, (1, 3, 2, 4))
    @test lent(permuted)[1:3] == (at(1, 1, 1, 1), [2, 6, 4, 8], [192, 8, 48, 1])
    @test lent(view(permuted, 3:4, 2, :, :))[1:3] == (at(3, 1, 2, 1), [2, 6, 2], [192, 8, 1])
    @test lent(reshape(x, 8, 24, 2))[1:3] == (at(1, 1, 1, 1), [2, 24, 8], [192, 8, 1])
    @test lent(reinterpret(Int32, x))[1] == at(1, 1, 1, 1)
    @test lent(Float64[])[2] == [0]
end

@testset "views and permuted arrays give the same result" begin
    q = randn(Float32, 8, 4, 6, 2) # read as (D, M, H, B) too
    permuted = PermutedDimsArray(q, (1, 3, 2, 4))
    dense = collect(permuted)
    expected = attention(dense, dense, dense; causal=true, return_lse=true)
    @test attention(permuted, permuted, permuted; causal=true, return_lse=true) == expected
    other = attention(q, q, q; causal=true, layout=:dshb, return_lse=true)
    @test PermutedDimsArray(other[1], (1, 3, 2, 4)) == expected[1] && other[2] == expected[2]
    backwards = view(reverse(dense; dims=3), :, :, 4:-1:1, :)
    @test attention(backwards, dense, backwards; causal=true) == expected[1]

    into = fill(7f0, 16, 6, 4, 2)
    attention(dense, dense, dense; causal=true, out=view(into, 1:2:16, :, :, :))
    @test into[1:2:16, :, :, :] == expected[1] && all(==(7), into[2:2:16, :, :, :])
end

@testset "16-bit inputs with Float32 results" begin
    q = Float16.(randn(8, 2, 5, 1))
    wide = attention(q, q, q; out_type=Float32, return_lse=true)
    out, lse = attention(q, q, q; return_lse=true)
    @test eltype(wide[1]) === Float32 && Float16.(wide[1]) == out && wide[1] != out
    g = attention_backward(q, q, q, q, out, lse; grad_type=Float32, grads=(:dk,))
    @test eltype(g.dk) === Float32 && g.dq === nothing
    dv = similar(q)
    @test attention_backward(q, q, q, q, out, lse; grads=(), dv=dv).dv === dv
end

sentence(f) = try f(); "" catch e; e isa DLAttnError ? e.message : rethrow() end

@testset "errors carry the sentence and nothing is written" begin
    q, k = randn(Float32, 2, 8, 1, 1), randn(Float32, 2, 3, 2, 1)
    out = fill(5f0, size(q))
    @test sentence(() -> attention(q, k, k; out=out)) == "k has 3 heads, which does not divide q's 8"
    @test code(() -> attention(q, k, k)) == DLAttn.DLATTN_ERR_SHAPE
    @test all(==(5), out)
    @test occursin("DLATTN_ERR_SHAPE", sprint(showerror, DLAttnError(Int32(2), "a sentence")))
    @test code(() -> attention(q, Float64.(q), q)) == DLAttn.DLATTN_ERR_DTYPE
    @test sentence(() -> attention(Int16.(out), q, q)) == "q has elements of type Int16, which the library has not"
    @test occursin("constant strides", sentence(() -> attention(q, q, view(q, [1, 2], :, :, :))))
    @test occursin("bias", sentence(() -> attention_backward(q, q, q, q, q, zeros(Float32, 1, 8, 1); grads=(:dbias,))))
    @test sentence(() -> attention(q, q, q; softcap="x")) == "softcap is \"x\"; expected a number"
    @test sentence(() -> attention(q, q, q; layout=:bshd)) == "layout is :bshd; expected :dhsb or :dshb"
    @test sentence(() -> attention(q, q, q; window=(1, 2, 3))) == "window is (1, 2, 3); expected a pair"
    @test sentence(() -> attention(q, q, q; seed=-1)) == "seed is -1, which is no UInt64"
    @test_throws ArgumentError attention(q, q, q; casual=true)
    @test code(() -> DLAttn.set_option("nonsense", 1)) == DLAttn.DLATTN_ERR_ARGUMENT
    @test DLAttn.set_option("num_threads", nothing) === nothing
end

@testset "queries" begin
    q = randn(Float32, 64, 2, 32, 2)
    project = read(joinpath(@__DIR__, "..", "Project.toml"), String)
    @test occursin("version = \"$(DLAttn.version())\"", project)
    @test DLAttn.version() == VersionNumber(DLAttn.DLATTN_VERSION_MAJOR, DLAttn.DLATTN_VERSION_MINOR, DLAttn.DLATTN_VERSION_PATCH)
    @test DLAttn.prepare(q, q, q; causal=true) === nothing
    @test DLAttn.prepare(q, q, q; causal=true, backward=true, bias=zeros(Float32, 32, 32)) === nothing
    @test occursin("float32 [2,32,2,64]", DLAttn.explain(q, q, q; causal=true))
    @test occursin("backward", DLAttn.explain(q, q, q; backward=true, sinks=zeros(Float32, 2)))
    @test occursin("softcap", DLAttn.explain(q, q, q; softcap=-1))
    @test occursin("cpu", DLAttn.explain())
end

@testset "many tasks at once" begin
    q = randn(Float32, 16, 2, 33, 1)
    expected = attention(q, q, q)
    results = Vector{Any}(undef, 8)
    Threads.@threads for i in 1:8
        results[i] = attention(q, q, q; num_threads=1 + i % 3)
        GC.gc(false)
    end
    @test all(==(expected), results)
end

@testset "structs are laid out as in C" begin
    for (kind, size, fields) in DLAttn.LAYOUTS
        @test sizeof(kind) == size
        @test fieldnames(kind) == map(first, fields)
        @test map(i -> fieldoffset(kind, i), 1:fieldcount(kind)) == [last(field) for field in fields]
    end
    for kind in (DLAttn.dlattn_attention, DLAttn.dlattn_outputs, DLAttn.dlattn_gradients, DLAttn.dlattn_exec)
        made, zeroed = kind(), kind()
        init = getfield(DLAttn, Symbol(nameof(kind), :_init))
        @test init(zeroed, sizeof(kind)) == DLAttn.DLATTN_OK
        @test all(name -> getfield(made, name) === getfield(zeroed, name), fieldnames(kind))
    end
end

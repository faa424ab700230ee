# The cache of keys and values, and rotary positions.

@testset "a cache takes new tokens where they belong" begin
    k, v, used, rows = randn(Float32, 4, 1, 3, 2), randn(Float32, 2, 1, 3, 2), [1, 4], Int32[2, 0]
    keys, vals = zeros(Float32, 4, 1, 8, 3), zeros(Float32, 2, 1, 8, 3)
    @test code(() -> DLAttn.kv_append!(keys, vals, k, v, used)) == DLAttn.DLATTN_ERR_SHAPE # 2 sequences, 3 rows
    DLAttn.kv_append!(keys, vals, k, v, used; batch_index=rows)
    for b in 1:2, (cache, new) in ((keys, k), (vals, v))
        row = cache[:, :, :, rows[b]+1]
        @test row[:, :, used[b]+1:used[b]+3] == new[:, :, :, b]
        @test count(!iszero, row) == length(new) ÷ 2
    end
    @test iszero(keys[:, :, :, 2])

    # Decoding on views of the cache is the causal problem, row after row.
    q, k = randn(8, 2, 6, 1), randn(8, 1, 6, 1)
    whole, cache = attention(q, k, k; causal=true), (zeros(8, 1, 9, 1), zeros(8, 1, 9, 1))
    for t in 1:6
        token = view(k, :, :, t:t, :)
        DLAttn.kv_append!(cache..., token, token, [t - 1])
        one = attention(view(q, :, :, t:t, :), view(cache[1], :, :, 1:t, :), view(cache[2], :, :, 1:t, :))
        @test maximum(abs, one - whole[:, :, t:t, :]) <= 64 * eps(Float64) * maximum(abs, whole)
    end
end

@testset "rotary turns pairs and turns them back" begin
    x, angles, starts = randn(Float32, 6, 3, 4, 2), 3 .* rand(Float32, 2, 9), Int32[0, 5]
    out = DLAttn.rotary(x, cos.(angles), sin.(angles); starts=starts)
    for b in 1:2, s in 1:4, h in 1:3, r in 1:2
        turned = (x[r, h, s, b] + im * x[r+2, h, s, b]) * cis(Float64(angles[r, starts[b]+s]))
        # cosine, sine, two products and a sum, each rounded
        @test abs(out[r, h, s, b] + im * out[r+2, h, s, b] - turned) <= 4 * eps(Float32) * abs(turned)
    end
    @test out[5:6, :, :, :] == x[5:6, :, :, :]
    back = DLAttn.rotary(out, cos.(angles), sin.(angles); starts=starts, inverse=true, out=out)
    @test back === out && maximum(abs, out - x) <= 8 * eps(Float32) * maximum(abs, x)

    pairs = reshape(permutedims(reshape(x[1:4, :, :, :], 2, 2, :), (2, 1, 3)), 4, 3, 4, 2) # 1 3 2 4
    other = DLAttn.rotary(pairs, cos.(angles), sin.(angles); starts=starts, interleaved=true)
    same = DLAttn.rotary(x[1:4, :, :, :], cos.(angles), sin.(angles); starts=starts)
    @test other[[1, 3, 2, 4], :, :, :] == same

    value, pullback = rrule(DLAttn.rotary, x, cos.(angles), sin.(angles); starts=starts)
    @test value == DLAttn.rotary(x, cos.(angles), sin.(angles); starts=starts)
    @test pullback(value)[2] == DLAttn.rotary(value, cos.(angles), sin.(angles); starts=starts, inverse=true)
    @test pullback(ZeroTangent())[2] === ZeroTangent()
end

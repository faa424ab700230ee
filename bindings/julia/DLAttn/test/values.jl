# Values and gradients against the plain formula in Float64, for every element type and the options beside each other.

const FLOATS = (Float16, Float32, Float64, BFloat16)

@testset "the plain formula, $T" for T in FLOATS
    sizes = (2, 5, 7, 4, 2, 8, 6) # B, M, N, H, G, D, E
    check_problem(T, sizes)
    check_problem(T, sizes; causal=true)
    check_problem(T, (1, 9, 4, 2, 1, 16, 16); causal=true) # rows that see no key
    check_problem(T, (1, 17, 33, 3, 3, 5, 3); window=(2, 1))
    check_problem(T, sizes; causal=true, window=(3, -1), sinks=true)
    check_problem(T, sizes; bias=(7, 5, 4, 2), scale=-0.25)
    check_problem(T, sizes; bias=(7, 1, 4, 1), causal=true, sinks=true) # dbias sums over M and B
    check_problem(T, (1, 40, 70, 2, 1, 40, 24); causal=true)
end

@testset "masks show exactly the keys they should" begin
    M, N = 5, 9
    q, k = zeros(Float32, 4, 1, M, 1), zeros(Float32, 4, 1, N, 1)
    v = [Float32(e == j) for e in 1:N, _ in 1:1, j in 1:N, _ in 1:1] # one-hot: out shows which keys a row sees
    mask = [(i + j) % 3 != 0 for j in 1:N, i in 1:M]
    problems = [((causal=true,), (i, j) -> j <= i + 4), ((causal=true, top_left=true), (i, j) -> j <= i),
                ((window=(2, nothing),), (i, j) -> j >= i + 2), ((window=1,), (i, j) -> abs(j - i - 4) <= 1),
                ((block_window=(2, 2),), (i, j) -> (i + 3) ÷ 2 - 2 < (j - 1) ÷ 2 <= (i + 3) ÷ 2),
                ((mask=mask, causal=true, positions=(3, 0)), (i, j) -> j <= i + 3 && mask[j, i]),
                ((mask=BitArray(mask),), (i, j) -> mask[j, i]),
                ((segments=([1, 1, 2, 2, 3][:, :], repeat(1:3; inner=3)[:, :]),), (i, j) -> (i + 1) ÷ 2 == (j + 2) ÷ 3),
                ((seqlens_k=Int32[6],), (i, j) -> j <= 6)]
    for (options, keep) in problems
        out, lse = attention(q, k, v; return_lse=true, options...)
        for i in 1:M
            seen = [keep(i, j) for j in 1:N]
            @test (out[:, 1, i, 1] .> 0) == seen
            @test abs(lse[i] - log(Float32(count(seen)))) <= 2 * eps(Float32) * max(1, log(count(seen)))
        end
    end
end

@testset "dropout keeps what its mask says" begin
    q = zeros(Float32, 4, 2, 6, 1)
    v = [Float32(e == j) for e in 1:6, _ in 1:2, j in 1:6, _ in 1:1]
    keep = DLAttn.dropout_mask!(Array{Bool}(undef, 6, 6, 2, 1), q, q; dropout=0.5, seed=7)
    out = attention(q, q, v; dropout=0.5, seed=7)
    @test any(keep) && !all(keep)
    @test all((out[j, h, i, 1] > 0) == keep[j, i, h, 1] for i in 1:6, j in 1:6, h in 1:2)
    state = UInt64[7, 0]
    @test attention(q, q, v; dropout=0.5, rng_state=state) == out
end

@testset "parts merge into the whole" begin
    q, k = randn(8, 2, 3, 1), randn(8, 2, 10, 1)
    whole = attention(q, k, k; return_lse=true)
    parts = [attention(q, x, x; return_lse=true) for x in (view(k, :, :, 1:4, :), view(k, :, :, 5:10, :))]
    merged = DLAttn.merge(first.(parts), last.(parts))
    # 10 keys, scores and values of a few units: some roundings of each sum
    @test all(maximum(abs, merged[n] - whole[n]) <= 64 * eps(Float64) * maximum(abs, whole[n]) for n in 1:2)
end

@testset "packed sequences are separate problems" begin
    x, cu = randn(Float32, 8, 2, 7), Int32[0, 3, 7]
    out, lse = attention(x, x, x; cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=4, max_seqlen_k=4, return_lse=true)
    for tokens in (1:3, 4:7)
        one = reshape(x[:, :, tokens], 8, 2, :, 1)
        alone = attention(one, one, one; return_lse=true)
        @test out[:, :, tokens] == alone[1][:, :, :, 1] && lse[tokens, :] == alone[2][:, :, 1]
    end
end

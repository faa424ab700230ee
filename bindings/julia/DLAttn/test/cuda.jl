# The CUDA extension: what it hands to the library, and, where there is a device, values and gradients on it. With
# DLATTN_TEST_CUDA set there must be one.

const simulated = standin("CUDA")
using CUDA: CUDA
load_extension("DLAttnCUDAExt")

if simulated
    @testset "the CUDA extension's tensors" begin
        x = CUDA.CuArray{Float32,4}(3, (8, 2, 5, 1))
        loans = Any[]
        GC.@preserve loans begin
            t = unsafe_load(DLAttn.borrow!(loans, :x, view(x, :, :, 2:4, :)))
            @test (t.device.device_type, t.device.device_id) == (DLAttn.kDLCUDA, 3)
            @test t.data == Ptr{Cvoid}(0x1000 + 4 * 16)
        end
        call = DLAttn.begin_call(x, x, x, NamedTuple())
        @test call.exec.stream == Ptr{Cvoid}(CUDA.stream().handle)
        @test code(() -> attention(x, zeros(Float32, 8, 2, 5, 1), x)) == DLAttn.DLATTN_ERR_DEVICE # two devices
    end
end

haskey(ENV, "DLATTN_TEST_CUDA") && @test CUDA.functional()
if CUDA.functional()
    @testset "on the device, $T" for T in (Float16, Float32, BFloat16)
        check_problem(T, (2, 5, 7, 4, 2, 8, 8); to=CUDA.CuArray, causal=true, sinks=true)
        check_problem(T, (1, 17, 33, 2, 2, 16, 8); to=CUDA.CuArray, window=(2, 1), bias=(33, 17, 2, 1))
    end
    @testset "permuted arrays and gradients through views on the device" begin
        q, k, v = randn(Float32, 8, 5, 2, 1), randn(Float32, 8, 9, 2, 2), randn(Float32, 8, 9, 2, 2) # (D, tokens, heads, B)
        dout, dlse = randn(Float32, 8, 2, 5, 1), randn(Float32, 5, 2, 1)
        turned(x) = PermutedDimsArray(x, (1, 3, 2, 4))
        part(x) = view(turned(x), :, :, 2:8, 2:2) # keys 2 to 8 of the second sequence
        arguments(to) = turned(to(q)), part(to(k)), part(to(v))
        function all_of(to)
            out, lse = attention(arguments(to)...; causal=true, return_lse=true)
            g = attention_backward(to(dout), arguments(to)..., out, lse; dlse=to(dlse), causal=true)
            return map(Array, (out, lse, g.dq, g.dk, g.dv))
        end
        for (found, wanted) in zip(all_of(CUDA.CuArray), all_of(identity))
            @test found ≈ wanted rtol = 256 * eps(Float32)
        end
        value, pull = rrule(attention, arguments(CUDA.CuArray)...; causal=true, return_lse=true)
        expected, back = rrule(attention, arguments(identity)...; causal=true, return_lse=true)
        for (found, wanted) in zip(pull((ZeroTangent(), CUDA.CuArray(dlse)))[2:4], back((ZeroTangent(), dlse))[2:4])
            @test Array(unthunk(found)) ≈ unthunk(wanted) rtol = 256 * eps(Float32)
        end
        into = CUDA.CuArray(zeros(Float32, 8, 5, 2, 1))
        @test attention(arguments(CUDA.CuArray)...; causal=true, out=turned(into)) isa PermutedDimsArray
        @test Array(into) ≈ PermutedDimsArray(expected[1], (1, 3, 2, 4)) rtol = 64 * eps(Float32)
    end
    @testset "views, rules and messages on the device" begin
        q, k, dout = randn(Float32, 8, 2, 6, 1), randn(Float32, 8, 2, 9, 1), randn(Float32, 8, 2, 6, 1)
        Q, K, Dout = map(CUDA.CuArray, (q, k, dout))
        whole = attention(Q, view(K, :, :, 3:9, :), view(K, :, :, 3:9, :))
        @test Array(whole) ≈ attention(q, k[:, :, 3:9, :], k[:, :, 3:9, :]) rtol = 64 * eps(Float32)
        @test occursin("backend: cuda", DLAttn.explain(Q, K, K))
        y, pull = rrule(attention, Q, K, K; causal=true)
        expected, back = rrule(attention, q, k, k; causal=true)
        @test Array(y) ≈ expected rtol = 64 * eps(Float32)
        for (found, wanted) in zip(pull(Dout)[2:4], back(dout)[2:4])
            @test Array(unthunk(found)) ≈ unthunk(wanted) rtol = 256 * eps(Float32)
        end
    end
end

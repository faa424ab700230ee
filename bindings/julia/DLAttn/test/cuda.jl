# What the CUDA extension hands to the library, with a stand-in for CUDA.jl: nothing here runs on a GPU.

if standin("CUDA")
    using CUDA: CUDA
    load_extension("DLAttnCUDAExt")

    @testset "the CUDA extension's tensors" begin
        x = CUDA.CuArray{Float32,4}(3, (8, 2, 5, 1))
        loans = Any[]
        GC.@preserve loans begin
            t = unsafe_load(DLAttn.borrow!(loans, :x, view(x, :, :, 2:4, :)))
            @test (t.device.device_type, t.device.device_id) == (DLAttn.kDLCUDA, 3)
            @test t.data == Ptr{Cvoid}(0x1000 + 4 * 16)
        end
        call = DLAttn.begin_call(x, x, x, NamedTuple())
        @test call.exec.stream == Ptr{Cvoid}(0x77)
        @test code(() -> attention(x, zeros(Float32, 8, 2, 5, 1), x)) == DLAttn.DLATTN_ERR_DEVICE # two devices
    end
end

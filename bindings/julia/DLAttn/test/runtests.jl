# Pkg.test("DLAttn"), or: julia --project=bindings/julia/DLAttn bindings/julia/DLAttn/test/runtests.jl
using DLAttn
using Random, Test

seed = parse(Int, get(ENV, "DLATTN_TEST_SEED", "2026"))
println("seed $seed (DLATTN_TEST_SEED), Julia $VERSION")
Random.seed!(seed)

include("extensions.jl")
include("reference.jl")
@testset "DLAttn" begin
    include("values.jl")
    include("calls.jl")
    include("gradients.jl")
    include("cache.jl")
    include("cuda.jl")
end

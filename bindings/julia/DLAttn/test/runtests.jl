# Pkg.test("DLAttn"), or: julia --project=bindings/julia/DLAttn bindings/julia/DLAttn/test/runtests.jl [FILE ...]
using DLAttn
using Random, Test

seed = parse(Int, get(ENV, "DLATTN_TEST_SEED", "2026"))
println("seed $seed (DLATTN_TEST_SEED), Julia $VERSION")
Random.seed!(seed)

include("extensions.jl")
include("reference.jl")
include("problem.jl")
const FILES = isempty(ARGS) ? ["values", "calls", "gradients", "cache", "cuda"] : ARGS
@testset "DLAttn" begin
    foreach(file -> include("$file.jl"), FILES)
end

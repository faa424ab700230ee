# The extensions. Where a package cannot be had, a stand-in of the few names that its extension uses takes its place.

"Makes a package or its stand-in loadable; whether it is the stand-in."
function standin(name)
    Base.find_package(name) === nothing || return false
    println("$name is not installed: its stand-in takes its place")
    folder = joinpath(@__DIR__, "standin")
    folder in LOAD_PATH || push!(LOAD_PATH, folder)
    return true
end

"Includes an extension that did not load by itself."
function load_extension(name)
    loaded = isdefined(Base, :get_extension) && Base.get_extension(DLAttn, Symbol(name)) !== nothing
    loaded || Base.include(Main, joinpath(@__DIR__, "..", "ext", "$name.jl"))
end

standin("ChainRulesCore")
standin("BFloat16s")
using BFloat16s: BFloat16
using ChainRulesCore: NoTangent, Thunk, ZeroTangent, rrule, unthunk
load_extension("DLAttnChainRulesCoreExt")
load_extension("DLAttnBFloat16sExt")

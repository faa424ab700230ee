# Finds and loads the shared library: DLATTN_LIBRARY, else the one that deps/build.jl made, else the loader's, else the
# one of the repository around this package.

const BUILT = joinpath(@__DIR__, "..", "deps", "usr", "lib", "libdlattn.so.$DLATTN_ABI_VERSION")
const IN_THE_REPOSITORY = joinpath(@__DIR__, "..", "..", "..", "..", "build", "release", "libdlattn.so")

candidates() = haskey(ENV, "DLATTN_LIBRARY") ? [ENV["DLATTN_LIBRARY"]] :
               [BUILT, "libdlattn.so.$DLATTN_ABI_VERSION", "libdlattn", IN_THE_REPOSITORY]

"Loads the first candidate there is and looks its functions up."
function load()
    tried = candidates()
    for name in tried
        handle = Libdl.dlopen(name; throw_error=false)
        handle === nothing && continue
        declare(handle)
        found = dlattn_abi_version()
        found == DLATTN_ABI_VERSION && return nothing
        error("$name has ABI version $found; DLAttn was made for $DLATTN_ABI_VERSION")
    end
    error("the library dlattn was not found; tried $(join(tried, ", ")). Set DLATTN_LIBRARY to the path of libdlattn.so")
end

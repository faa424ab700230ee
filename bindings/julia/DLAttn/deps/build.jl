# Builds the C library into deps/usr where there is no other: run by Pkg.add, Pkg.develop and Pkg.build("DLAttn").
#
# The sources are those of the repository around this package; it takes CMake and a C compiler.
import Libdl

const ROOT = abspath(joinpath(@__DIR__, "..", "..", "..", ".."))
const OTHERS = ["libdlattn.so.0", "libdlattn", joinpath(ROOT, "build", "release", "libdlattn.so")]

if haskey(ENV, "DLATTN_LIBRARY")
    println("DLATTN_LIBRARY names the library: nothing to build")
elseif any(name -> Libdl.dlopen(name; throw_error=false) !== nothing, OTHERS)
    println("there is a libdlattn: nothing to build")
elseif !isfile(joinpath(ROOT, "include", "dlattn", "dlattn.h"))
    @warn "no libdlattn, and no sources around the package: install the library, or set DLATTN_LIBRARY to its path"
else
    build, usr = joinpath(@__DIR__, "build"), joinpath(@__DIR__, "usr")
    kind = get(ENV, "DLATTN_BUILD_TYPE", "Release")
    run(`cmake -S $ROOT -B $build -DCMAKE_BUILD_TYPE=$kind -DDLATTN_BUILD_TOOLS=OFF -DCMAKE_INSTALL_PREFIX=$usr -DCMAKE_INSTALL_LIBDIR=lib`)
    run(`cmake --build $build --parallel $(Sys.CPU_THREADS) --target dlattn`)
    run(`cmake --install $build --component runtime`)
end

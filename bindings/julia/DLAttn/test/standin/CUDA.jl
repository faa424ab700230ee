# The few names of CUDA.jl that the extension and its tests use, over the driver itself: arrays in a device's memory where
# there is a driver with a device; else arrays that only say so. Names and meanings are those of CUDA.jl 5 and 6, which export
# CuArray, stream, device and deviceid, have unsafe_free! and functional as public names, and CuArray below DenseArray.
module CUDA

using Libdl

const library = Ref(C_NULL)
const current_stream = Ref(C_NULL)
const works = Ref(false)

macro driver(name, types, arguments...)
    call = :(ccall(Libdl.dlsym(library[], $name), Cint, $types, $(arguments...)))
    return esc(:(let status = $call
        status == 0 || error($name, " reports error ", status)
    end))
end

function __init__()
    current_stream[] = Ptr{Cvoid}(UInt(0x77))
    found = Libdl.dlopen("libcuda.so.1"; throw_error=false)
    (found === nothing || ccall(Libdl.dlsym(found, :cuInit), Cint, (Cuint,), 0) != 0) && return
    library[] = found
    context = Ref(C_NULL)
    @driver(:cuDevicePrimaryCtxRetain, (Ptr{Ptr{Cvoid}}, Cint), context, 0)
    @driver(:cuCtxSetCurrent, (Ptr{Cvoid},), context[])
    @driver(:cuStreamCreate, (Ptr{Ptr{Cvoid}}, Cuint), current_stream, 1)
    works[] = true
end

struct CuDevice
    handle::Cint
end
deviceid(device::CuDevice) = Int(device.handle)

struct CuStream
    handle::Ptr{Cvoid}
end

functional() = works[]
stream() = CuStream(current_stream[])
synchronize() = @driver(:cuStreamSynchronize, (Ptr{Cvoid},), current_stream[])

struct CuPtr{T}
    address::UInt
end
Base.UInt(p::CuPtr) = p.address

mutable struct CuArray{T,N} <: DenseArray{T,N}
    id::Int
    address::UInt64
    dims::NTuple{N,Int}
end
CuArray{T,N}(id::Int, dims::NTuple{N,Int}) where {T,N} = CuArray{T,N}(id, 0x1000, dims) # memory that is not there
function CuArray{T}(::UndefInitializer, dims::Int...) where {T}
    address = Ref{UInt64}(0)
    @driver(:cuMemAlloc_v2, (Ptr{UInt64}, Csize_t), address, max(16, prod(dims) * sizeof(T)))
    return finalizer(unsafe_free!, CuArray{T,length(dims)}(0, address[], dims))
end
function CuArray(x::Array{T}) where {T}
    y = CuArray{T}(undef, size(x)...)
    @driver(:cuMemcpyHtoDAsync_v2, (UInt64, Ptr{Cvoid}, Csize_t, Ptr{Cvoid}), y.address, x, sizeof(x), current_stream[])
    synchronize()
    return y
end
function Base.Array(y::CuArray{T}) where {T}
    x = Array{T}(undef, y.dims)
    @driver(:cuMemcpyDtoHAsync_v2, (Ptr{Cvoid}, UInt64, Csize_t, Ptr{Cvoid}), x, y.address, sizeof(x), current_stream[])
    synchronize()
    return x
end
function unsafe_free!(x::CuArray)
    (x.address == 0 || x.address == 0x1000) && return
    synchronize()
    @driver(:cuMemFree_v2, (UInt64,), x.address)
    x.address = 0
    return
end

Base.size(x::CuArray) = x.dims
Base.strides(x::CuArray) = Base.size_to_strides(1, x.dims...)
Base.pointer(x::CuArray{T}) where {T} = CuPtr{T}(x.address)
Base.similar(x::CuArray, ::Type{T}, dims::Dims{N}) where {T,N} =
    x.address == 0x1000 ? CuArray{T,N}(x.id, dims) : CuArray{T}(undef, dims...)

device(x::CuArray) = CuDevice(x.id)

"Of one byte each, which a zero of any type is made of."
function Base.fill!(x::CuArray{T}, value) where {T}
    iszero(value) || error("the stand-in fills with zeros alone")
    @driver(:cuMemcpyHtoDAsync_v2, (UInt64, Ptr{Cvoid}, Csize_t, Ptr{Cvoid}), x.address, zeros(UInt8, prod(x.dims) * sizeof(T)),
            prod(x.dims) * sizeof(T), current_stream[])
    synchronize()
    return x
end

end

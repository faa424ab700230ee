# Arrays that say they are on a GPU, for tests of the extension's arithmetic where there is no CUDA.jl.
module CUDA

struct CuPtr{T}
    address::UInt
end
Base.UInt(p::CuPtr) = p.address

struct CuArray{T,N} <: DenseArray{T,N}
    id::Int
    dims::NTuple{N,Int}
end
Base.size(x::CuArray) = x.dims
Base.strides(x::CuArray) = Base.size_to_strides(1, x.dims...)
Base.pointer(::CuArray{T}) where {T} = CuPtr{T}(0x1000)
Base.similar(x::CuArray, ::Type{T}, dims::Dims{N}) where {T,N} = CuArray{T,N}(x.id, dims)

device(x::CuArray) = x.id
deviceid(id) = id
stream() = (handle=Ptr{Cvoid}(0x77),)
unsafe_free!(::CuArray) = nothing

end

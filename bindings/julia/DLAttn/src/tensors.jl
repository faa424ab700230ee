# Arrays as DLTensors. A Julia array (D, H, M, B) is the tensor [B, M, H, D]: dimensions and strides are reversed, and
# nothing is copied. Extensions add methods of `device`, `stream`, `scratch` and `release` for their arrays.

"The DLPack dtype of an element type, or nothing."
dltype(::Type) = nothing
dltype(::Type{Float16}) = DLDataType(kDLFloat, 16, 1)
dltype(::Type{Float32}) = DLDataType(kDLFloat, 32, 1)
dltype(::Type{Float64}) = DLDataType(kDLFloat, 64, 1)
dltype(::Type{Bool}) = DLDataType(kDLBool, 8, 1)
dltype(::Type{UInt8}) = DLDataType(kDLUInt, 8, 1)
dltype(::Type{T}) where {T<:Union{Int32,Int64}} = DLDataType(kDLInt, 8 * sizeof(T), 1)
dltype(::Type{T}) where {T<:Union{UInt32,UInt64}} = DLDataType(kDLUInt, 8 * sizeof(T), 1)
@static if isdefined(Core, :BFloat16)
    dltype(::Type{Core.BFloat16}) = DLDataType(kDLBfloat, 16, 1)
end

"The type of log-sum-exps for an element type of q."
lse_type(::Type{T}) where {T} = T === Float64 ? Float64 : Float32

"The array that owns the memory of a view, a permuted, reshaped or reinterpreted array."
root(x::DenseArray) = x
root(x::AbstractArray) = root(parent(x))

"The address of an array's first element."
address(x::DenseArray) = Ptr{Cvoid}(UInt(pointer(x)))
address(x::Union{PermutedDimsArray,Base.ReshapedArray,Base.ReinterpretArray}) = address(parent(x))
function address(x::SubArray)
    from = parent(x)
    offset = mapreduce((index, stride, axis) -> (first(index) - first(axis)) * stride, +, parentindices(x), strides(from),
                       axes(from); init=0)
    return address(from) + offset * sizeof(eltype(x))
end

"Whether the elements of an array lie at constant strides in memory."
is_strided(x) = false
is_strided(::DenseArray) = true
is_strided(x::PermutedDimsArray) = is_strided(parent(x))
is_strided(x::SubArray) = is_strided(parent(x)) && all(i -> i isa Union{Integer,AbstractRange}, parentindices(x))
is_strided(x::Union{Base.ReshapedArray,Base.ReinterpretArray}) = parent(x) isa DenseArray

"Where an array's memory is; `x` owns it."
function device(x::DenseArray)
    pointer(x) isa Ptr && return DLDevice(kDLCPU, 0)
    argument_error("a $(typeof(x)) is on a device that DLAttn knows nothing of; for a CuArray load CUDA")
end

"The stream on which calls for such an array run."
stream(::DenseArray) = C_NULL

"Workspace of so many bytes beside an array; nothing: the library helps itself."
scratch(::DenseArray, bytes) = nothing
release(::Any) = nothing

"The DLTensor of an array, in `loans`, which keeps it and all it points to alive."
function borrow!(loans::Vector{Any}, name, x::AbstractArray)
    is_strided(x) || argument_error("$name is a $(typeof(x)); expected an array with its elements at constant strides in memory")
    type = dltype(eltype(x))
    type === nothing && throw(DLAttnError(DLATTN_ERR_DTYPE, "$name has elements of type $(eltype(x)), which the library has not"))
    return lend!(loans, address(x), device(root(x)), type, size(x), strides(x), x)
end
borrow!(loans::Vector{Any}, name, x::BitArray) = borrow!(loans, name, Array(x)) # bits have no address
borrow!(loans::Vector{Any}, name, ::Nothing) = Ptr{DLTensor}(C_NULL)
borrow!(loans::Vector{Any}, name, x) = argument_error("$name is $(repr(x)); expected an array")

function lend!(loans::Vector{Any}, data, device, type, extents, steps, owner)
    rank = length(extents)
    dims = Vector{Int64}(undef, 2 * rank)
    for i in 1:rank
        dims[i] = extents[rank+1-i]
        dims[rank+i] = steps[rank+1-i]
    end
    tensor = Ref(DLTensor(data, device, rank, type, pointer(dims), pointer(dims, rank + 1), 0))
    push!(loans, owner, dims, tensor)
    return Base.unsafe_convert(Ptr{DLTensor}, tensor)
end

"A tensor of which only the shape matters, beside an array."
function outline!(loans::Vector{Any}, like, ::Type{T}, extents) where {T}
    return lend!(loans, C_NULL, device(root(like)), dltype(T), extents, cumprod([1; collect(extents)])[1:end-1], nothing)
end

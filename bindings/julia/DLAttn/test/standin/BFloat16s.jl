# A bfloat16 with the conversions that the tests need, where the package BFloat16s cannot be had.
module BFloat16s

export BFloat16

primitive type BFloat16 <: AbstractFloat 16 end

Base.Float32(x::BFloat16) = reinterpret(Float32, UInt32(reinterpret(UInt16, x)) << 16)
Base.Float64(x::BFloat16) = Float64(Float32(x))
Base.eps(::Type{BFloat16}) = 2.0^-7
Base.convert(::Type{BFloat16}, x::Real) = BFloat16(x)
Base.:(==)(x::BFloat16, y::BFloat16) = Float32(x) == Float32(y)

"Rounds a finite number to the nearest, ties to even."
function BFloat16(x::Real)
    bits = reinterpret(UInt32, Float32(x))
    bits += 0x00007fff + ((bits >> 16) & 1)
    return reinterpret(BFloat16, UInt16(bits >> 16))
end
BFloat16(x::BFloat16) = x

end

# BFloat16 of the package BFloat16s, where it is not the language's own.
module DLAttnBFloat16sExt

using DLAttn: DLAttn, DLDataType, kDLBfloat
using BFloat16s: BFloat16

if !isdefined(Core, :BFloat16) || BFloat16 !== Core.BFloat16
    DLAttn.dltype(::Type{BFloat16}) = DLDataType(kDLBfloat, 16, 1)
end

end

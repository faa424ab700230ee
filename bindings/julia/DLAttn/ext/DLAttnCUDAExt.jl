# CuArrays: device, the task's stream, workspace from CUDA.jl's pool. Tested over a stand-in for CUDA.jl that has the driver's
# memory and stream (test/standin), not yet with CUDA.jl itself.
module DLAttnCUDAExt

using DLAttn: DLAttn, DLDevice, kDLCUDA
using CUDA: CUDA, CuArray

DLAttn.device(x::CuArray) = DLDevice(kDLCUDA, CUDA.deviceid(CUDA.device(x)))
DLAttn.stream(::CuArray) = Ptr{Cvoid}(CUDA.stream().handle)
DLAttn.scratch(::CuArray, bytes) = CuArray{UInt8}(undef, Int(bytes))
DLAttn.release(x::CuArray) = CUDA.unsafe_free!(x) # in the order of the task's stream, after what the call has queued

end

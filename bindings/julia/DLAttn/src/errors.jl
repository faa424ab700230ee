# The library's status codes as an exception.

"""
    DLAttnError

A call that was refused. It prints the library's sentence: which tensor, what was found, what was expected. `code` is the
status code (`DLAttn.DLATTN_ERR_SHAPE`, ...), `message` the sentence. Nothing has been written then.
"""
struct DLAttnError <: Exception
    code::Int32
    message::String
end

function Base.showerror(io::IO, e::DLAttnError)
    print(io, "DLAttnError: ", e.message, " (", unsafe_string(dlattn_status_name(e.code)), ")")
end

"Throws the sentence of the thread's last call, if that failed."
function check(status::Int32)
    status == DLATTN_OK || throw(DLAttnError(status, unsafe_string(dlattn_last_error())))
    return nothing
end

"For what the C library cannot see: an object that does not become a tensor or a number."
argument_error(text) = throw(DLAttnError(DLATTN_ERR_ARGUMENT, text))

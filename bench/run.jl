# Julia's runner for bench/languages.py: times named bench cases through the package DLAttn.
#
#   julia bench/run.jl CASES.json THREADS BUDGET      names of cases on stdin, one a line
#
# Each name is answered with one line: a JSON array of results, as bench/README.md says; so do bench/run.c, run.py, run.rs. To cases of
# BFloat16 the answer is [] where the package BFloat16s is not there.
module Run

using DLAttn
import Statistics

include("json.jl")

const DTYPES = Dict{String,DataType}("f32" => Float32, "f16" => Float16, "f64" => Float64)
if VERSION >= v"1.9" && Base.find_package("BFloat16s") !== nothing # DLAttn knows the package's type by an extension
    import BFloat16s
    DTYPES["bf16"] = BFloat16s.BFloat16
end
const SHORTEST = 50e-6 # a sample is one call, or as many as take these seconds

# ---- the data, by the rule of bench/README.md ---------------------------------------------------------------------------

const NUMBERS = Dict(name => UInt32(number) for (number, name) in enumerate((:q, :k, :v, :dout, :bias, :mask, :sinks)))

function hashed(t::UInt32, n)
    x = UInt32(n) + t * 0x9e3779b9
    x = xor(x, x >> 16) * 0x7feb352d
    x = xor(x, x >> 15) * 0x846ca68b
    return xor(x, x >> 16)
end

"An array of whatever size in memory order, which is the row-major order of the reversed dimensions."
function bits(name, size)
    t = NUMBERS[name]
    return reshape([hashed(t, n) for n in 0:prod(size)-1], size)
end

floats(name, size, ::Type{T}) where {T} = T.(Float32.(bits(name, size) .>> 8) .* 2.0f0^-23 .- 1.0f0)
segments(length, batch) = Int32[div(i * 4, length) - 1 + b for i in 0:length-1, b in 0:batch-1]

"A case with its arrays; options has everything but these."
struct Problem{A,L,O,G}
    q::A
    k::A
    v::A
    dout::A
    out::A
    lse::L
    options::O
    gradients::G
end

"The size of an array that the case describes by letters, in Julia's order."
function extents(case, letters)
    named = Dict('b' => "B", 'h' => "H", 'g' => "G", 'm' => "M", 'n' => "N", 'd' => "D", 'e' => "E")
    return Tuple(letter == '1' ? 1 : case[named[letter]] for letter in reverse(letters))
end

tokens(case, i, h, d) = extents(case, case["layout"] == "bshd" ? "b$i$h$d" : "b$h$i$d")

function Problem(case, threads)
    T = DTYPES[case["dtype"]]
    q, k, v = floats(:q, tokens(case, 'm', 'h', 'd'), T), floats(:k, tokens(case, 'n', 'g', 'd'), T), floats(:v, tokens(case, 'n', 'g', 'e'), T)
    out = zeros(T, tokens(case, 'm', 'h', 'e'))
    lse = zeros(T === Float64 ? Float64 : Float32, extents(case, "bhm"))
    options = read_options(case, threads, T)
    gradients = (dq=similar(q), dk=similar(k), dv=similar(v))
    haskey(options, :bias) && (gradients = merge(gradients, (dbias=similar(options.bias),)))
    haskey(options, :sinks) && (gradients = merge(gradients, (dsinks=similar(options.sinks),)))
    return Problem(q, k, v, floats(:dout, size(out), T), out, lse, options, gradients)
end

function read_options(case, threads, ::Type{T}) where {T}
    options = Pair{Symbol,Any}[:num_threads=>threads, :layout=>case["layout"] == "bshd" ? :dhsb : :dshb]
    add(name, value) = push!(options, name => value)
    for flag in case["flags"]
        flag in ("causal", "top_left", "deterministic", "allow_tf32") && add(Symbol(flag), true)
    end
    for name in ("window", "block_window", "scale", "softcap", "dropout", "seed", "offset")
        haskey(case, name) && add(Symbol(name), case[name])
    end
    haskey(case, "bias") && add(:bias, floats(:bias, extents(case, case["bias"]), T))
    haskey(case, "mask") && add(:mask, UInt8.(bits(:mask, extents(case, case["mask"])) .% 8 .< 5))
    if haskey(case, "alibi")
        size = extents(case, case["alibi"])
        add(:alibi_slopes, reshape([T(0.5^(1 + n % 7)) for n in 0:prod(size)-1], size))
    end
    haskey(case, "sinks") && add(:sinks, floats(:sinks, extents(case, "h"), T))
    haskey(case, "segments") && add(:segments, (segments(case["M"], case["B"]), segments(case["N"], case["B"])))
    return (; options...)
end

forward(p::Problem) = attention(p.q, p.k, p.v; out=p.out, lse=p.lse, p.options...)
backward(p::Problem) = attention_backward(p.dout, p.q, p.k, p.v, p.out, p.lse; grads=(), p.gradients..., p.options...)

# ---- times --------------------------------------------------------------------------------------------------------------

function timed(call, problem, times)
    start = time_ns()
    for _ in 1:times
        call(problem)
    end
    return (time_ns() - start) * 1e-9 / times
end

"Seconds of a call, and how many calls were timed; at least three come before."
function median(call, problem, budget)
    begun, each = time_ns(), minimum(timed(call, problem, 1) for _ in 1:3)
    while (time_ns() - begun) * 1e-9 < 0.1 * budget
        each = min(each, timed(call, problem, 1))
    end
    burst = each < SHORTEST ? floor(Int, SHORTEST / each) + 1 : 1
    samples = clamp(floor(Int, budget / (each * burst)), 5, 100000)
    return Statistics.median([timed(call, problem, burst) for _ in 1:samples]), samples * burst
end

"The sum of each array's mean absolute value: the same in every language."
mean_abs(arrays) = sum(sum(abs ∘ Float64, array) / length(array) for array in arrays)

function results(case, threads, budget)
    haskey(DTYPES, case["dtype"]) || return "[]"
    problem = Problem(case, threads)
    passes = haskey(case, "forward_only") ? (forward,) : (forward, backward)
    found = map(passes) do pass
        seconds, repeats = median(pass, problem, budget)
        arrays = pass === forward ? (problem.out,) : values(problem.gradients)
        string("{\"provider\": \"dlattn\", \"language\": \"julia\", \"version\": \"", DLAttn.version(), "\", \"case\": \"", case["name"],
               "\", \"pass\": \"", nameof(pass), "\", \"dtype\": \"", case["dtype"], "\", \"threads\": ", threads, ", \"repeats\": ", repeats,
               ", \"ms\": ", seconds * 1e3, ", \"mean_abs\": ", mean_abs(arrays), "}")
    end
    return "[" * join(found, ", ") * "]"
end

function main(file, threads, budget)
    cases = Dict(case["name"] => case for case in Json.parse(read(file, String)))
    for name in eachline(stdin)
        println(results(cases[name], threads, budget))
        flush(stdout)
    end
end

end

Run.main(ARGS[1], parse(Int, ARGS[2]), parse(Float64, ARGS[3]))

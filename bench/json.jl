# Reads JSON as the command dlattn writes it: the standard library has no reader, and the bench needs no package for so little.
# Strings may have the escapes \" and \\ alone.
module Json

"One value of the text; an object is a Dict, an array a Vector."
function parse(text::AbstractString)
    value, at = read_value(text, skip(text, firstindex(text)))
    skip(text, at) > lastindex(text) || error("JSON goes on after its value, at byte $at")
    return value
end

function skip(text, at)
    while at <= lastindex(text) && isspace(text[at])
        at = nextind(text, at)
    end
    return at
end

function read_value(text, at)
    at <= lastindex(text) || error("JSON ends too early")
    c = text[at]
    c == '{' && return read_items(text, at, '}', Dict{String,Any}())
    c == '[' && return read_items(text, at, ']', Any[])
    c == '"' && return read_string(text, at)
    return read_word(text, at)
end

"The items of an array or object, up to what closes it."
function read_items(text, at, close, into)
    at = skip(text, nextind(text, at))
    while text[at] != close
        item, at = into isa Dict ? read_pair(text, at) : read_value(text, at)
        push!(into, item)
        at = skip(text, at)
        text[at] == ',' ? (at = skip(text, nextind(text, at))) : text[at] == close || error("JSON has $(text[at]) at byte $at")
    end
    return into, nextind(text, at)
end

function read_pair(text, at)
    key, at = read_string(text, at)
    at = skip(text, at)
    text[at] == ':' || error("JSON has no colon at byte $at")
    value, at = read_value(text, skip(text, nextind(text, at)))
    return key => value, at
end

function read_string(text, at)
    text[at] == '"' || error("JSON has no string at byte $at")
    found, at = IOBuffer(), nextind(text, at)
    while text[at] != '"'
        text[at] == '\\' && (at = nextind(text, at))
        print(found, text[at])
        at = nextind(text, at)
    end
    return String(take!(found)), nextind(text, at)
end

"A number, true, false or null."
function read_word(text, at)
    last = at
    while last <= lastindex(text) && (isletter(text[last]) || isdigit(text[last]) || text[last] in "+-.")
        last = nextind(text, last)
    end
    word = text[at:prevind(text, last)]
    word in ("true", "false", "null") && return (word == "null" ? nothing : word == "true"), last
    integer = tryparse(Int, word)
    return integer === nothing ? Base.parse(Float64, word) : integer, last
end

end

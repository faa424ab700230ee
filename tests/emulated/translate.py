"""A kernel as plain C++: PTX statements become calls ptx_<mnemonic>(outputs, inputs), dynamic shared memory a pointer, and each
entry gets a caller entry_<name>(void **parameters) and the sizes of its parameters, sizes_<name>[], ended by 0.

    python translate.py SOURCE.cu FOLDER_OF_HEADERS OUT.cpp
"""
import re
import sys
from pathlib import Path

STATEMENT = re.compile(r'\basm\s*(?:volatile)?\s*\(((?:[^()"]|"(?:[^"\\]|\\.)*"|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*)\)\s*;')
ENTRY = re.compile(r'extern "C" __global__ void (?:__cluster_dims__\((\d+)[^)]*\))?\s*(?:__launch_bounds__\([^)]*\))?\s*(\w+)'
                   r'\((const __grid_constant__ [^)]*)\)')


def split(text: str, mark: str) -> list[str]:
    """At the marks outside of strings and brackets."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, letter in enumerate(text):
        if letter == '"' and text[at - 1] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (letter in "([{") - (letter in ")]}")
            if letter == mark and depth == 0:
                parts.append(text[start:at])
                start = at + 1
    return parts + [text[start:]]


def operands(text: str) -> list[str]:
    return [re.sub(r'^\s*"[^"]*"\s*\(', "", part).rstrip()[:-1] for part in split(text, ",") if part.strip()]


def call(match: re.Match) -> str:
    sections = split(match.group(1), ":")
    code = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', sections[0])).replace("\\n", " ").replace("\\t", " ")
    outputs, inputs = (operands(sections[n]) if len(sections) > n else [] for n in (1, 2))
    if not code.strip():
        return ";"
    if "wgmma.mma_async" in code: # its many operands have names
        if '"l"(columns)' in sections[2]:
            return "ptx_wgmma_columns(d, a, columns, accumulate);"
        return "ptx_wgmma_shared(d, a, b, accumulate);" if "accumulate" in sections[2] else "ptx_wgmma_registers(d, a, b);"
    name = code.split()[0].rstrip(";")
    if name == "{":
        name = "mbarrier_wait" if "mbarrier" in code else "bar_red_or" if "bar.red" in code else "tanh_tail"
    elif "cluster_ctarank" in code:
        name = "mov_u32_cluster_ctarank"
    elif "tid.x" in code:
        name = "mov_u32_tid"
    elif name.startswith("cp.async.ca"):
        name += "_" + code.rstrip("; ").split()[-1]
    return f'ptx_{re.sub(r"[^A-Za-z0-9]", "_", name)}({", ".join(outputs + inputs)});'


def translate(text: str) -> str:
    text = STATEMENT.sub(call, text)
    return re.sub(r"extern __shared__ __align__\(\d+\) unsigned char (\w+)\[\];",
                  r"\n#define \1 ((unsigned char *)emulated->shared)\n", text)


def main() -> None:
    source, folder, out = map(Path, sys.argv[1:])
    for header in [*folder.rglob("*.cuh"), *folder.rglob("*.h")]:
        if header.name not in ("device.h", "block.h", "hopper.h"):
            header.write_text(translate(header.read_text()))
    text = source.read_text()
    callers = ""
    for cluster, name, parameters in ENTRY.findall(text):
        kinds = re.findall(r"__grid_constant__ (\w+)", parameters)
        values = ", ".join(f"*(const {kind} *)p[{n}]" for n, kind in enumerate(kinds))
        callers += f'extern "C" void entry_{name}(void **p) {{ {name}({values}); }}\n'
        callers += f'extern "C" const int cluster_{name} = {cluster or 1};\n'
        callers += f'extern "C" const size_t sizes_{name}[] = {{{", ".join(f"sizeof({kind})" for kind in kinds)}, 0}};\n'
    out.write_text('#include "hopper.h"\n' + translate(text) + "\n" + callers)


main()

// nvrtc.cpp: a libnvrtc that compiles kernels for the CPU: translate.py, then the C++ compiler. Its "cubin" is a shared object.
//
// EMULATED_FOLDER is this folder. $EMULATED_FLAGS adds flags for the compiler, $EMULATED_KEEP keeps the sources.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

struct _nvrtcProgram {
    std::string source, name, log, image;
    std::vector<std::pair<std::string, std::string>> headers;
};
typedef _nvrtcProgram *nvrtcProgram;

static const int archs[] = {75, 80, 86, 89, 90};

static void make_folders(const std::string &path) {
    for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) mkdir(path.substr(0, at).c_str(), 0777);
}

static void write_file(const std::string &path, const std::string &text) {
    make_folders(path);
    std::ofstream(path) << text;
}

static std::string read_file(const std::string &path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

extern "C" {
int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 5, 0; }
int nvrtcGetSupportedArchs(int *out) { return memcpy(out, archs, sizeof archs), 0; }
const char *nvrtcGetErrorString(int) { return "the compiler refused"; }

int nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int count, const char *const *headers,
                       const char *const *names) {
    *program = new _nvrtcProgram{source, name ? name : "kernel.cu", "", "", {}};
    for (int n = 0; n < count; n++) (*program)->headers.emplace_back(names[n], headers[n]);
    return 0;
}
int nvrtcDestroyProgram(nvrtcProgram *program) { return delete *program, *program = nullptr, 0; }

int nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options) {
    char folder[] = "/tmp/emulatedXXXXXX";
    if (!mkdtemp(folder)) return 7;
    const std::string at = folder, quiet = " > " + at + "/log 2>&1";
    for (auto &header : program->headers) write_file(at + "/" + header.first, header.second);
    write_file(at + "/source.cu", program->source);
    std::string flags = " -O1 -std=c++17 -fPIC -shared -w -ffp-contract=off -fno-strict-aliasing -I " EMULATED_FOLDER " -I " + at;
    flags += " -I " + at + "/shared ";
    for (int n = 0; n < count; n++) {
        const std::string option = options[n];
        if (option.compare(0, 2, "-D") == 0) flags += option + " ";
        const size_t arch = option.find("arch=");
        const int capability = atoi(option.c_str() + option.find_last_of('_') + 1);
        if (arch != std::string::npos) flags += "-D__CUDA_ARCH__=" + std::to_string(capability * 10) + " ";
    }
    if (getenv("EMULATED_FLAGS")) flags += getenv("EMULATED_FLAGS");
    const std::string source = at + "/source.cpp";
    const std::string translate = EMULATED_PYTHON " " EMULATED_FOLDER "/translate.py " + at + "/source.cu " + at + " " + source + quiet;
    const std::string compile = EMULATED_COMPILER " " + flags + " " + source + " -o " + at + "/image" + quiet;
    const bool good = system(translate.c_str()) == 0 && system(compile.c_str()) == 0;
    program->log = read_file(at + "/log");
    program->image = good ? read_file(at + "/image") : "";
    if (!getenv("EMULATED_KEEP")) (void)!system(("rm -rf " + at).c_str());
    return good ? 0 : 6;
}
int nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) { return *bytes = program->log.size() + 1, 0; }
int nvrtcGetProgramLog(nvrtcProgram program, char *log) { return memcpy(log, program->log.c_str(), program->log.size() + 1), 0; }
int nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes) { return *bytes = program->image.size(), 0; }
int nvrtcGetCUBIN(nvrtcProgram program, char *image) { return memcpy(image, program->image.data(), program->image.size()), 0; }
int nvrtcGetPTXSize(nvrtcProgram, size_t *bytes) { return *bytes = 0, 0; }
int nvrtcGetPTX(nvrtcProgram, char *) { return 0; }
}

/* provider.c: attention of any shared object that has the entry points of dlattn.h, called through libffi. */
#include "provider.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void name_after(provider *p, const char *file) {
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    snprintf(p->name, sizeof p->name, "%.*s", (int)strcspn(base, "."), base);
}

int provider_open(provider *p, const char *file) {
    static const char *const symbols[2] = {"dlattn_forward", "dlattn_backward"};
    static ffi_type *pointers[3] = {&ffi_type_pointer, &ffi_type_pointer, &ffi_type_pointer};
    name_after(p, file);
    p->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!p->library) return fprintf(stderr, "%s\n", dlerror());
    for (int n = 0; n < 2; n++) *(void **)&p->entries[n] = dlsym(p->library, symbols[n]);
    if (!p->entries[0]) return fprintf(stderr, "%s does not export dlattn_forward\n", file);
    if (ffi_prep_cif(&p->cif, FFI_DEFAULT_ABI, 3, &ffi_type_sint32, pointers) != FFI_OK)
        return fprintf(stderr, "libffi refuses the signature\n");
    return 0;
}

int32_t provider_call(void *context, instance *x, int backward, const dlattn_exec *exec) {
    provider *p = context;
    const dlattn_attention *attention = &x->attention;
    const void *results = backward ? (const void *)&x->gradients : (const void *)&x->outputs;
    void *arguments[3] = {(void *)&attention, (void *)&results, (void *)&exec};
    ffi_arg status = 0; /* libffi widens results narrower than a register */
    if (!p->entries[backward]) return DLATTN_ERR_UNSUPPORTED;
    ffi_call(&p->cif, p->entries[backward], &status, arguments);
    return (int32_t)status;
}

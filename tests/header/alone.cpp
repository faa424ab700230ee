// The public header compiles alone, and twice, as strict C++17.
#include <dlattn/dlattn.h>
#include <dlattn/dlattn.h>

int32_t header_alone(const dlattn_attention *attention, const dlattn_outputs *outputs)
{
    return dlattn_forward(attention, outputs, nullptr);
}

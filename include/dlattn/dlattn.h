/* dlattn.h: exact attention, forward and backward, on DLPack tensors. This file is the whole stable API and its manual.
 *
 * WHAT IT COMPUTES
 *
 * Letters used everywhere: B batch, H query heads, G key/value heads (G divides H; query head h reads key/value head
 * h / (H/G)), M queries, N keys, D size of a query/key head, E size of a value head. With variable lengths, M_b and
 * N_b are those of sequence b, and i and j count inside the sequence.
 *
 *     s[b,h,i,j] = scale * sum_d q[b,i,h,d] * k[b,j,h/(H/G),d]
 *     s          = softcap * tanh(s / softcap)                      if softcap > 0
 *     s         += -slope[b|1,h] * |i' - j'|                        ALiBi (Press et al., 2022)
 *     s         += bias[b|1,h|1,i|1,j|1]
 *     s          = -inf                                             where a mask hides (i, j)
 *     lse[b,h,i] = log(sum_j exp(s) + exp(sink[h]))                 natural logarithm; exp(sink) only with sinks
 *     p          = exp(s - lse), after dropout: p * keep * 256/(256-t)
 *     out[b,i,h,e] = sum_j p * v[b,j,h/(H/G),e]
 *
 * No M x N matrix is ever stored: the rows are computed by the online softmax (Milakov and Gimelshein, 2018; Dao et
 * al., 2022), and the backward recomputes p from lse.
 *
 * MASKS AND POSITIONS
 *
 * Masks, ALiBi and windows speak of positions i' and j'. By default j' = j and i' = i + off, where off = N_b - M_b
 * (the last query sees the last key: "bottom-right"), or off = 0 with DLATTN_TOP_LEFT. With DLATTN_POSITIONS,
 * i' = i + q_start[b] and j' = j + k_start[b], keys with j' < 0 are hidden (left padding), and dropout uses i', j' too;
 * so any piece of a larger problem (a ring step, a chunk of a prefill, a shard) can be said exactly. bias, mask and
 * segments are always indexed by the local i, j. Positions, i + q_start and j + k_start included, must fit int64. A key
 * is visible when every mask that is set keeps it:
 *
 *     DLATTN_CAUSAL         j' <= i'
 *     DLATTN_WINDOW         i' - window_left <= j' <= i' + window_right; a negative bound is unlimited; INT64_MAX is legal
 *     DLATTN_BLOCK_WINDOW   floor(i'/block_size) - block_count < floor(j'/block_size) <= floor(i'/block_size)
 *     q_segments, kv_segments   q_segments[b,i] == kv_segments[b,j]
 *     mask                  mask[b|1,h|1,i|1,j|1] is not zero
 *     lengths               i < M_b and j < N_b
 *
 * A row that sees no key, or only scores of -inf, has out 0, lse -inf and gradients 0 (with sinks: lse = sink). Rows
 * past M_b and rows of no sequence have out 0, lse -inf and gradients 0, sinks or not; they are always written. A
 * hidden score influences nothing, whatever q, k and bias hold there. A non-finite v (in the backward also q, k, dout)
 * inside a sequence may spread to other rows of the same (b, key/value head), never further.
 *
 * GRADIENTS
 *
 *     delta = sum_e dout * out - dlse                ds = p * (dp - delta)
 *
 * dq, dk and dv follow by the chain rule; dbias is ds summed over the dimensions of extent 1; dsinks[h] =
 * -sum exp(sink - lse) * delta. Each gradient is optional. Outputs are overwritten, never added to. The backward of
 * one part of a split problem is dlattn_backward on that part, with the merged out and lse.
 *
 * DROPOUT, A SPECIFICATION
 *
 * t = clamp(round(256 * dropout), 1, 255) for 0 < dropout < 1. A score is kept when its byte >= t, and a kept p is
 * multiplied by 256/(256-t). dropout 0 is off; dropout 1 makes out 0. The byte of (b,h,i,j) comes from Philox-4x32-10
 * (Salmon et al., 2011) with key (seed low, seed high + offset high) and counter
 * ((j/32)*32 + (i%8)*4 + (j%8)/2, i/16, b*H + h, offset low): word (j/8)%4, byte ((i/8)%2)*2 + j%2 (byte 0 is the
 * lowest). Divisions are floors, remainders not negative, every sum is taken modulo 2^32. lse ignores dropout. Dropout
 * does not heal: a row whose lse is NaN has out NaN, even where dropout keeps nothing of it.
 *
 * TENSORS
 *
 * Every tensor is a borrowed DLTensor: any strides, 0 and negative included; NULL strides mean compact row-major;
 * byte_offset is honoured; data may be NULL where an extent is 0. lanes must be 1. All tensors of a call live on the
 * device of q: kDLCPU and kDLCUDAHost are served by the CPU backend, kDLCUDA and kDLCUDAManaged by CUDA. Dimension
 * order, with layout DLATTN_BSHD (first) or DLATTN_BHSD (second), each side (query, key) on its own:
 *
 *     padded    q [B,M,H,D] or [B,H,M,D]    k [B,N,G,D] or [B,G,N,D]    v as k, with E
 *     packed    q [T,H,D]   or [H,T,D]      k [T,G,D]   or [G,T,D]      with cu_seqlens [B+1]
 *     paged     k [P,page,G,D] or [P,G,page,D], with block_table [B,pages] and seqlens_k; forward only
 *     out, dout as q with E; lse, dlse [B,H,M], packed [H,T]; dq, dk, dv as q, k, v
 *
 * q, k, v and dout share a dtype: float16, bfloat16, float32, or float64 (CPU only). out and the gradients have that
 * dtype, or are float32 (written unrounded). bias, slopes and sinks: q's dtype or float32; each gradient: its parent's
 * dtype or float32. lse and dlse: float32, float64 for float64 inputs. Lengths, segments, starts and block tables:
 * int32 or int64. mask: bool or uint8. Sums are float32 (float64 for float64).
 *
 * Every size is legal, 0 included; D and E go from 1 to 256. A zero-size problem succeeds.
 *
 * ALIASING. Refused: an output with stride 0 on an extent above 1 or that overlaps itself; an output that starts where
 * another tensor of the call starts; overlapping ranges of compact tensors. Interleaved views (dq, dk, dv inside one
 * buffer) are legal.
 *
 * ERRORS. Every call returns a status: DLATTN_OK or a small positive code. The sentence, which names the tensor, what
 * was found and what was expected, goes to exec->message if given and to the thread-local dlattn_last_error(). After
 * an error nothing has been written to any output.
 *
 * DETERMINISM. On the CPU the same call gives the same bits, for any number of threads and any strides. On one model of
 * GPU every forward does; of a backward dq may differ in its last bits from run to run, unless DLATTN_DETERMINISTIC.
 *
 * MANNERS. The library never prints (unless DLATTN_LOG=1), never exits, creates no stream, allocates no device memory
 * and never synchronises. Every function is safe from any thread. Environment: DLATTN_NUM_THREADS, DLATTN_CPU_ISA
 * (scalar, avx2, avx512, avx512bf16, amx, neon), DLATTN_LOG, DLATTN_NVRTC, DLATTN_CUDA_VARIANT, DLATTN_CACHE_DIR (see
 * dlattn_set_option).
 *
 * GROWTH. Structs begin with struct_size, set by the caller to sizeof, and only ever grow at the end. Zero means
 * default in every field. A struct_size below the 1.0 size is DLATTN_ERR_ARGUMENT. A nonzero byte past what the
 * library knows, or an unknown flag, is DLATTN_ERR_UNSUPPORTED, never ignored. reserved fields must be 0.
 */
#ifndef DLATTN_DLATTN_H
#define DLATTN_DLATTN_H

#include <stdint.h>

#include <dlpack/dlpack.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define DLATTN_API
#else
#define DLATTN_API __attribute__((visibility("default")))
#endif

#define DLATTN_VERSION_MAJOR 0
#define DLATTN_VERSION_MINOR 1
#define DLATTN_VERSION_PATCH 0
#define DLATTN_ABI_VERSION 0

/* Status codes. Values are pinned and never reused; callers accept codes they do not know. */
enum {
    DLATTN_OK = 0,
    DLATTN_ERR_ARGUMENT = 1,      /* a NULL, a size, a value or a combination that no call accepts */
    DLATTN_ERR_SHAPE = 2,         /* ranks, extents, strides or overlaps that do not fit together */
    DLATTN_ERR_DTYPE = 3,         /* a dtype that this tensor may not have */
    DLATTN_ERR_DEVICE = 4,        /* a device the library does not serve, or tensors on two devices */
    DLATTN_ERR_UNSUPPORTED = 5,   /* well-formed, but no backend of this build computes it; see dlattn_explain */
    DLATTN_ERR_WORKSPACE = 6,     /* workspace too small or misaligned */
    DLATTN_ERR_OUT_OF_MEMORY = 7, /* host memory could not be had */
    DLATTN_ERR_CUDA = 8,          /* the driver reported an error */
    DLATTN_ERR_COMPILE = 9,       /* a kernel could not be compiled or loaded */
    DLATTN_ERR_INTERNAL = 10      /* a defect of the library: please report it */
};

/* Bits of dlattn_attention.flags. */
enum {
    DLATTN_CAUSAL = 1,
    DLATTN_TOP_LEFT = 2,
    DLATTN_WINDOW = 4,
    DLATTN_BLOCK_WINDOW = 8,
    DLATTN_POSITIONS = 16,
    DLATTN_SCALE = 32,         /* take `scale` as it stands (0 and negative included) instead of 1/sqrt(D) */
    DLATTN_DETERMINISTIC = 64, /* the same bits in every run; the CPU always is */
    DLATTN_ALLOW_TF32 = 128    /* CUDA may use TF32 products for float32 inputs */
};

/* Values of the layout fields. */
enum { DLATTN_BSHD = 0, DLATTN_BHSD = 1 };

/* dlattn_attention: what is to be computed. A zeroed struct with struct_size, q, k and v is plain full attention.
 *
 * q, k, v           see TENSORS above; required.
 * bias              float, rank 1 to 4, right-aligned to [B,H,max M,max N]; an extent of 1 broadcasts. NULL: none.
 * mask              bool or uint8, shapes as bias; nonzero keeps. NULL: none.
 * alibi_slopes      [H] or [B,H]. sinks: [H]. NULL: none.
 * q_segments        [B,M] integers; kv_segments [B,N]; both or neither, padded layouts only.
 * cu_seqlens_q/_k   [B+1] integers, rising; makes that side packed: sequence b is tokens cu[b] to cu[b+1]-1.
 * seqlens_q/_k      [B] integers: the used length of each sequence, from its start. NULL: all of it.
 * block_table       [B,pages] integers: k and v are paged, keys n * page and on of sequence b lie in page
 *                   block_table[b,n]. With seqlens_k, without cu_seqlens_k; forward only. Pages past the used length are
 *                   not read; on CUDA an id of no page is read as page 0.
 * q_starts, k_starts [B] integers, with DLATTN_POSITIONS: first position of each sequence; override q_start, k_start.
 * rng_state         [2] 64-bit integers (seed, offset) or [4] uint32 (their halves, low first): overrides both.
 * max_seqlen_q/_k   packed: an upper bound on M_b, N_b (0: the number of tokens). Lengths are clamped to it.
 * softcap           0: off. Otherwise positive and finite.
 * dropout           a probability in [0, 1].
 * layout            DLATTN_BSHD or DLATTN_BHSD, for q, k, v, out and their gradients. */
typedef struct dlattn_attention {
    int64_t struct_size;
    const DLTensor *q, *k, *v;
    const DLTensor *bias, *mask, *alibi_slopes, *sinks, *q_segments, *kv_segments;
    const DLTensor *cu_seqlens_q, *cu_seqlens_k, *seqlens_q, *seqlens_k, *block_table, *q_starts, *k_starts;
    const DLTensor *rng_state;
    int64_t max_seqlen_q, max_seqlen_k;
    int64_t window_left, window_right, block_size, block_count, q_start, k_start;
    double scale, softcap, dropout;
    uint64_t seed, offset;
    uint32_t flags;
    int32_t layout;
} dlattn_attention;

/* dlattn_outputs: what the forward writes.
 * out: as q with E, required. lse: [B,H,M] (packed [H,T]), may be NULL. Natural logarithm of the row's sum of
 *      exp(score), sink included; -INFINITY for a row that sees nothing. */
typedef struct dlattn_outputs {
    int64_t struct_size;
    DLTensor *out, *lse;
} dlattn_outputs;

/* dlattn_gradients: what the backward reads and writes.
 * out, lse, dout: from the forward and from the caller's loss; required. dlse: gradient of lse, NULL means zero.
 * dq, dk, dv, dbias, dsinks: outputs; NULL means not wanted, and it is then not computed. dbias has the shape of
 * bias, dsinks that of sinks. */
typedef struct dlattn_gradients {
    int64_t struct_size;
    const DLTensor *out, *lse, *dout, *dlse;
    DLTensor *dq, *dk, *dv, *dbias, *dsinks;
} dlattn_gradients;

/* dlattn_exec: how to run. NULL is allowed and means all defaults.
 * stream            the CUDA stream (NULL: legacy default stream); must be NULL on the CPU.
 * workspace         16-byte aligned memory on the tensors' device, workspace_bytes long; contents undefined before and
 *                   after. It serves one call at a time. On the CPU it may be NULL: the library then takes host
 *                   memory for the call and keeps a spare of at most 64 MiB for the next one. On CUDA it may be NULL
 *                   where the query's *minimum_bytes is 0, as it is for every forward. With NULL and workspace_bytes
 *                   above 0 a call on CUDA is planned as if they were there, and fails with DLATTN_ERR_WORKSPACE before
 *                   it launches anything if it would use any: so a caller may try first and ask only then.
 * message           receives the sentence of an error (always NUL-terminated), at most message_bytes.
 * num_threads       CPU threads; 0: DLATTN_NUM_THREADS, else what affinity and cgroup quota allow. */
typedef struct dlattn_exec {
    int64_t struct_size;
    void *stream, *workspace;
    uint64_t workspace_bytes;
    char *message;
    int64_t message_bytes;
    int32_t num_threads, reserved0;
} dlattn_exec;

/* dlattn_parts: results of a problem that was split over its keys, for dlattn_merge.
 * out: `count` pointers to tensors of the same shape, as dlattn_outputs.out; lse: `count` pointers likewise.
 * layout: as in dlattn_attention. Tensors of one part are float16, bfloat16, float32 or float64; lse float32 or, for
 * float64, float64. */
typedef struct dlattn_parts {
    int64_t struct_size;
    const DLTensor *const *out, *const *lse;
    int64_t count;
    int32_t layout, reserved0;
} dlattn_parts;

/* dlattn_cache: new keys and values and the cache that takes them, for dlattn_kv_append.
 * k_new [B,S,G,D], v_new [B,S,G,E] (or as layout says); k_cache, v_cache [B,capacity,G,D|E], or paged
 * [P,page,G,D|E] with block_table [B,pages]; all of one floating dtype. seqlens: [B] integers, tokens already in the
 * cache. batch_index: [B] integers or NULL, the cache row of each sequence (the cache may then have any number of rows);
 * not with block_table. */
typedef struct dlattn_cache {
    int64_t struct_size;
    const DLTensor *k_new, *v_new, *seqlens, *block_table, *batch_index;
    DLTensor *k_cache, *v_cache;
    int32_t layout, reserved0;
} dlattn_cache;

/* dlattn_rotation: rotary position embedding (Su et al., 2021), for dlattn_rotary.
 * x [B,S,H,D] (or as layout says), of a floating dtype; out like x (may be x itself); cosines, sines [positions, R/2]
 * with R <= D, of x's dtype or float32; starts: [B] integers or NULL (zeros), the position of each sequence's first token.
 * interleaved: pairs are (2r,2r+1) instead of (r, r+R/2). inverse: rotate back, which is the backward. */
typedef struct dlattn_rotation {
    int64_t struct_size;
    const DLTensor *x, *cosines, *sines, *starts;
    DLTensor *out;
    int32_t layout, interleaved, inverse, reserved0;
} dlattn_rotation;

/* dlattn_X_init: writes exactly struct_size bytes: struct_size itself, zero elsewhere. The same as `= {sizeof x}` in
 * C, for languages without sizeof. Errors: DLATTN_ERR_ARGUMENT (NULL, or struct_size below the 1.0 size). Since 0.1. */
DLATTN_API int32_t dlattn_attention_init(dlattn_attention *attention, int64_t struct_size);
DLATTN_API int32_t dlattn_outputs_init(dlattn_outputs *outputs, int64_t struct_size);
DLATTN_API int32_t dlattn_gradients_init(dlattn_gradients *gradients, int64_t struct_size);
DLATTN_API int32_t dlattn_exec_init(dlattn_exec *exec, int64_t struct_size);
DLATTN_API int32_t dlattn_parts_init(dlattn_parts *parts, int64_t struct_size);
DLATTN_API int32_t dlattn_cache_init(dlattn_cache *cache, int64_t struct_size);
DLATTN_API int32_t dlattn_rotation_init(dlattn_rotation *rotation, int64_t struct_size);

/* dlattn_forward: computes out and, if wanted, lse. In words: for every b, h, i the loop at the head of this file.
 * Memory beyond the outputs is O(M + N), never O(M*N). On CUDA it returns after the launch.
 * Errors: all codes. Since 0.1. */
DLATTN_API int32_t dlattn_forward(const dlattn_attention *attention, const dlattn_outputs *outputs,
                                  const dlattn_exec *exec);

/* dlattn_backward: computes the wanted gradients from out, lse, dout and dlse (FlashAttention's recomputation, Dao
 * et al., 2022). attention must be the forward's: the same masks, bias, scale, dropout, seed and offset.
 * Errors: all codes; DLATTN_ERR_ARGUMENT when dbias or dsinks is wanted without bias or sinks. Since 0.1. */
DLATTN_API int32_t dlattn_backward(const dlattn_attention *attention, const dlattn_gradients *gradients,
                                   const dlattn_exec *exec);

/* dlattn_forward_workspace, dlattn_backward_workspace: how much workspace a call uses at best (*bytes) and at least
 * (*minimum_bytes; either pointer may be NULL). With less than *bytes the call uses fewer threads and gives the same
 * results; on CUDA it cuts the keys into fewer parts and sums dq another way, and is as exact. device_id -1 asks for a
 * bound that holds on every CUDA device, and needs no driver. Reads shapes, strides, dtypes, devices and num_threads; data,
 * byte_offset and stream are ignored, and data may be NULL. Errors: as the call itself, without those that need data. Since 0.1. */
DLATTN_API int32_t dlattn_forward_workspace(const dlattn_attention *attention, const dlattn_outputs *outputs,
                                            const dlattn_exec *exec, uint64_t *bytes, uint64_t *minimum_bytes);
DLATTN_API int32_t dlattn_backward_workspace(const dlattn_attention *attention, const dlattn_gradients *gradients,
                                             const dlattn_exec *exec, uint64_t *bytes, uint64_t *minimum_bytes);

/* dlattn_prepare: makes the first call of such a problem as fast as the next: compiles and loads kernels, starts
 * threads. outputs or gradients may be NULL (not both); data may be NULL. Errors: as the calls. Since 0.1. */
DLATTN_API int32_t dlattn_prepare(const dlattn_attention *attention, const dlattn_outputs *outputs,
                                  const dlattn_gradients *gradients, const dlattn_exec *exec);

/* dlattn_explain: says in words what a call would do: the problem as understood, the backend and kernel chosen, the
 * workspace, and each backend's reason for refusing. Exactly one of outputs and gradients is given; with attention
 * NULL (and both NULL) it describes the library and the machine instead. Writes at most text_bytes bytes, always
 * NUL-terminated. Returns DLATTN_OK when the call would be accepted, else the code it would return (the text is
 * written all the same). Since 0.1. */
DLATTN_API int32_t dlattn_explain(const dlattn_attention *attention, const dlattn_outputs *outputs,
                                  const dlattn_gradients *gradients, const dlattn_exec *exec, char *text,
                                  int64_t text_bytes);

/* dlattn_merge: joins the results of a problem split over its keys:
 *     merged lse = log(sum_p exp(lse_p)), merged out = sum_p exp(lse_p - merged lse) * out_p
 * merged->lse may be NULL. It adds no sink: pass the sinks to exactly one part. A row that is empty in all parts has
 * out 0 and lse -inf. On CUDA at most 48 parts. Errors: ARGUMENT, SHAPE, DTYPE, DEVICE, UNSUPPORTED, CUDA, COMPILE.
 * Since 0.1. */
DLATTN_API int32_t dlattn_merge(const dlattn_parts *parts, const dlattn_outputs *merged, const dlattn_exec *exec);

/* dlattn_dropout_mask: writes which scores dropout keeps, by the specification above, for tests and debugging.
 * keep: [B,H,max M,max N] bool or uint8, any strides; 1 kept, 0 dropped. attention: as for the forward; data of q, k
 * and v is not read. Errors: ARGUMENT, SHAPE, DTYPE, DEVICE, UNSUPPORTED. Since 0.1. */
DLATTN_API int32_t dlattn_dropout_mask(const dlattn_attention *attention, DLTensor *keep, const dlattn_exec *exec);

/* dlattn_kv_append: copies k_new and v_new behind the tokens of the cache, in place: token s of sequence b becomes token
 * seqlens[b] + s of its row, or of the pages that block_table[b] lists. seqlens is not changed. On the CPU a token
 * without a place is DLATTN_ERR_ARGUMENT and nothing is written; on CUDA it is dropped. Where two sequences name one row,
 * either may win. Errors: ARGUMENT, SHAPE, DTYPE, DEVICE, UNSUPPORTED, CUDA, COMPILE. Since 0.1. */
DLATTN_API int32_t dlattn_kv_append(const dlattn_cache *cache, const dlattn_exec *exec);

/* dlattn_rotary: rotates the first R elements of each head by the angles of position starts[b] + s, and copies the rest:
 *     (x, y) -> (x cos - y sin, x sin + y cos)
 * computed in float32 (float64 on the CPU) and rounded once. On the CPU a position outside of cosines is an error and
 * nothing is written; on CUDA it is clamped. Packed tokens: x [T,1,H,D] with starts [T] their positions.
 * Errors: ARGUMENT, SHAPE, DTYPE, DEVICE, UNSUPPORTED (float64 on CUDA), CUDA, COMPILE. Since 0.1. */
DLATTN_API int32_t dlattn_rotary(const dlattn_rotation *rotation, const dlattn_exec *exec);

/* dlattn_version: 10000*major + 100*minor + patch of the library (compare with the macros of the header).
 * dlattn_abi_version: rises when a binary built against an older header would no longer work. Since 0.1. */
DLATTN_API int32_t dlattn_version(void);
DLATTN_API int32_t dlattn_abi_version(void);

/* dlattn_set_option: process-wide settings; each overrides the environment variable of the same meaning.
 *     "num_threads"  a number, 0 for automatic          "cpu_isa"  scalar, avx2, avx512, avx512bf16, amx, neon, or auto
 *     "log"          0 or 1: a line on stderr for what is compiled, and why
 *     "nvrtc"        the path of libnvrtc.so or of its folder, tried before what the system has
 *     "cuda_variant" the family of CUDA kernels: auto, generic (any GPU, plain arithmetic), sm80 (tensor cores) or sm90;
 *                    with a tile, rows x keys [x warps [x stages]], one kernel of dlattn info's list: sm80:128x64. What it
 *                    does not compute is DLATTN_ERR_UNSUPPORTED then
 *     "cache_dir"    the folder that keeps compiled CUDA kernels; else $XDG_CACHE_HOME/dlattn or ~/.cache/dlattn
 * value NULL restores the default. Errors: ARGUMENT (unknown name or value), UNSUPPORTED (an instruction set this
 * machine lacks). Since 0.1. */
DLATTN_API int32_t dlattn_set_option(const char *name, const char *value);

/* dlattn_status_name: "DLATTN_ERR_SHAPE" and so on; "DLATTN_ERR_UNKNOWN" for a code this version does not know.
 * dlattn_last_error: the sentence of the last failed call on this thread; "" when the last call succeeded. The
 * pointer stays valid until the thread's next call. Since 0.1. */
DLATTN_API const char *dlattn_status_name(int32_t status);
DLATTN_API const char *dlattn_last_error(void);

#ifdef __cplusplus
}
#endif

#endif

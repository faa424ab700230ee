// scores.cuh: what turns q.k into a score (scale, softcap, ALiBi, bias) and what hides it element by element (mask tensor,
// segments). Interval masks are row limits, see row_limits.
//
// With -DFEATURES=bits a kernel knows at compile time which of them there are; without, it asks the problem.
#ifndef DLATTN_SCORES_CUH
#define DLATTN_SCORES_CUH

#include "sequence.cuh"

#ifdef FEATURES
#define HAS(p, feature) (((FEATURES) & (feature)) != 0)
#else
#define HAS(p, feature) (((p).features & (feature)) != 0)
#endif

// The constants of one (sequence, query head).
typedef struct score_context {
    float slope;
    i64 distance;            // i' - j' of i = j = 0
    i64 bias_at, mask_at;    // element (b, h, 0, 0)
    i64 q_segments_at, kv_segments_at;
} score_context;

DEVICE score_context score_context_of(const dlattn_params &p, const sequence &s, int h) {
    score_context c;
    c.slope = HAS(p, DLATTN_FEATURE_ALIBI) ? load_float(p.alibi_slopes, at(p.alibi_slopes, s.b, h)) : 0.0f;
    c.distance = dlattn_sub_sat(s.q_position, s.k_position);
    c.bias_at = at(p.bias, s.b, h);
    c.mask_at = at(p.mask, s.b, h);
    c.q_segments_at = at(p.q_segments, s.b);
    c.kv_segments_at = at(p.kv_segments, s.b);
    return c;
}

// The score of (i, j) from dot = q.k, in natural units. *derivative: of the score with respect to scale * dot.
DEVICE float score_of(const dlattn_params &p, const score_context &c, float dot, int i, int j, float *derivative) {
    float s = dot * p.scale;
    *derivative = 1.0f;
    if (HAS(p, DLATTN_FEATURE_SOFTCAP)) {
        float x = s / p.softcap, u = exp2f(-2.0f * LOG2_E * fabsf(x)), v = 1.0f + u;
        s = p.softcap * tanhf(x);
        *derivative = 4.0f * u / (v * v); // 1/cosh^2 x; 1 - tanh^2 x would lose its digits
    }
    if (HAS(p, DLATTN_FEATURE_ALIBI)) {
        s -= c.slope * fabsf((float)dlattn_add_sat(c.distance, i - j));
    }
    if (HAS(p, DLATTN_FEATURE_BIAS)) s += load_float(p.bias, c.bias_at + i * p.bias.stride[2] + j * p.bias.stride[3]);
    return s;
}

// Do the mask tensor and the segments keep (i, j)? i < M_b, j < N_b.
DEVICE bool element_visible(const dlattn_params &p, const score_context &c, int i, int j) {
    if (HAS(p, DLATTN_FEATURE_MASK) &&
        !((const unsigned char *)p.mask.data)[c.mask_at + i * p.mask.stride[2] + j * p.mask.stride[3]])
        return false;
    return !HAS(p, DLATTN_FEATURE_SEGMENTS) ||
           load_int(p.q_segments, c.q_segments_at + i * p.q_segments.stride[1]) ==
               load_int(p.kv_segments, c.kv_segments_at + j * p.kv_segments.stride[1]);
}

typedef struct limits {
    int lo, hi;  // keys [lo, hi)
} limits;

// The keys that the interval masks and N_b leave to row i; {0, 0} past the sequence's end.
DEVICE limits row_limits(const dlattn_params &p, const sequence &s, const dlattn_mask &m, int i) {
    limits r = {0, 0};
    if (i >= s.M) return r;
    if (!HAS(p, DLATTN_FEATURE_INTERVAL)) {
        r.hi = s.N;
        return r;
    }
    dlattn_interval v = dlattn_mask_limits(&m, i);
    r.lo = (int)v.lo;
    r.hi = (int)v.hi;
    return r;
}

// 0 or the factor of a kept probability: 256/(256-t). (i, j) as dlattn.h's dropout counts them.
DEVICE float dropout_factor(const dlattn_params &p, const dlattn_philox_key &key, const sequence &s, int h, int i, int j) {
    i64 row = i, column = j;
    if (p.positions) {
        row += s.q_position;
        column += s.k_position;
    }
    bool kept = dlattn_dropout_byte(&key, (u32)(s.b * p.H + h), row, column) >= (u32)p.dropout_threshold;
    return kept ? p.dropout_scale : 0.0f;
}

#endif

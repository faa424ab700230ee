/* bad_input_cases.h: the table of bad inputs: what is done to a good call, and what must be said of it.
 *
 * X(name, functions, code, sentence, statements): the statements spoil call *c; t is c->t, a its attention. Functions
 * are bits: each named function must refuse with the code and a sentence that contains the text. QUERIES adds the
 * workspace queries, prepare and explain, which see everything but data. */

#define BAD_TENSORS(X) \
    X(q_null, BOTH | MASKS | QUERIES, ARGUMENT, "q is NULL, expected a tensor [B,M,H,D]", a->q = NULL) \
    X(k_null, BOTH | MASKS | QUERIES, ARGUMENT, "k is NULL", a->k = NULL) \
    X(v_null, BOTH | MASKS | QUERIES, ARGUMENT, "v is NULL", a->v = NULL) \
    X(out_null, BOTH | QUERIES, ARGUMENT, "out is NULL", c->outputs.out = NULL; c->gradients.out = NULL) \
    X(lse_null, BACKWARD | QUERIES, ARGUMENT, "lse is NULL, expected a tensor [B,H,M]", c->gradients.lse = NULL) \
    X(dout_null, BACKWARD | QUERIES, ARGUMENT, "dout is NULL", c->gradients.dout = NULL) \
    X(keep_null, MASKS, ARGUMENT, "keep is NULL", c->keep = NULL) \
    X(q_data_null, BOTH, ARGUMENT, "q has data NULL", t[Q].data = NULL) \
    X(v_data_null, BOTH, ARGUMENT, "v has data NULL", t[V].data = NULL) \
    X(out_data_null, BOTH, ARGUMENT, "out has data NULL", t[OUT].data = NULL) \
    X(dk_data_null, BACKWARD, ARGUMENT, "dk has data NULL", t[DK].data = NULL) \
    X(bias_data_null, BOTH, ARGUMENT, "bias has data NULL", a->bias = &t[BIAS]; t[BIAS].data = NULL) \
    X(seqlens_data_null, BOTH | MASKS, ARGUMENT, "seqlens_k has data NULL", \
      a->seqlens_k = &t[SEQLENS_K]; t[SEQLENS_K].data = NULL) \
    X(shape_null, BOTH | QUERIES, ARGUMENT, "k has shape NULL, expected 4 extents", t[K].shape = NULL) \
    X(q_rank_3, BOTH | QUERIES, SHAPE, "q has rank 3, expected 4: [B,M,H,D]", t[Q].ndim = 3) \
    X(q_rank_5, BOTH | QUERIES, SHAPE, "q has rank 5, expected 4", t[Q].ndim = 5) \
    X(q_rank_negative, BOTH | QUERIES, SHAPE, "q has rank -1, expected 4", t[Q].ndim = -1) \
    X(packed_rank_4, BOTH | QUERIES, SHAPE, "q has rank 4, expected 3: [T,H,D]", a->cu_seqlens_q = &t[CU_Q]) \
    X(lse_rank_4, BOTH | QUERIES, SHAPE, "lse has rank 4, expected 3: [B,H,M]", t[LSE].ndim = 4) \
    X(negative_extent, BOTH | QUERIES, SHAPE, "k has extent -5 in dimension 1", c->shape[K][1] = -5) \
    X(lanes, BOTH | QUERIES, DTYPE, "v has 4 lanes, expected 1", t[V].dtype.lanes = 4) \
    X(q_int32, BOTH | QUERIES, DTYPE, "q has dtype int32, expected float16, bfloat16, float32 or float64", \
      set_type(c, Q, kDLInt, 32)) \
    X(q_float8, BOTH | QUERIES, DTYPE, "q has dtype code 10 with 8 bits, expected float16", \
      set_type(c, Q, kDLFloat8_e4m3fn, 8)) \
    X(k_dtype_differs, BOTH | QUERIES, DTYPE, "k has dtype float16, expected float32", set_type(c, K, kDLFloat, 16)) \
    X(v_float64_alone, BOTH | QUERIES, DTYPE, "v has dtype float64, expected float32", set_type(c, V, kDLFloat, 64)) \
    X(q_float64_alone, BOTH | QUERIES, DTYPE, "k has dtype float32, expected float64", set_type(c, Q, kDLFloat, 64)) \
    X(out_dtype, BOTH | QUERIES, DTYPE, "out has dtype float16, expected float32", set_type(c, OUT, kDLFloat, 16)) \
    X(out_dtype_of_half, FORWARD, DTYPE, "out has dtype float64, expected float16 or float32", \
      set_type(c, Q, kDLFloat, 16); set_type(c, K, kDLFloat, 16); set_type(c, V, kDLFloat, 16); \
      set_type(c, OUT, kDLFloat, 64)) \
    X(lse_dtype, BOTH | QUERIES, DTYPE, "lse has dtype float64, expected float32", set_type(c, LSE, kDLFloat, 64)) \
    X(dout_dtype, BACKWARD | QUERIES, DTYPE, "dout has dtype bfloat16, expected float32", \
      set_type(c, DOUT, kDLBfloat, 16)) \
    X(dq_dtype, BACKWARD | QUERIES, DTYPE, "dq has dtype float64, expected float32", set_type(c, DQ, kDLFloat, 64)) \
    X(byte_offset_wraps, BOTH, ARGUMENT, "q has byte_offset 18446744073709551612 and strides that leave", \
      t[Q].byte_offset = UINT64_MAX - 3) \
    X(byte_offset_unaligned, BOTH, ARGUMENT, "q starts at an address that is no multiple of 4", t[Q].byte_offset = 2) \
    X(product_overflows, BOTH | QUERIES, SHAPE, "q has shape [2,4611686018427387904,4,8], expected one whose size", \
      c->shape[Q][1] = INT64_C(1) << 62) \
    X(product_overflows_beside_zero, BOTH | QUERIES, SHAPE, "q has shape [0,4611686018427387904,4,8]", \
      c->shape[Q][0] = 0; c->shape[Q][1] = INT64_C(1) << 62) \
    X(stride_overflows, BOTH | QUERIES, SHAPE, "k has strides [4611686018427387904,16,8,1], expected a reach", \
      c->strides[K][0] = INT64_C(1) << 62) \
    X(stride_overflows_down, BOTH | QUERIES, SHAPE, "k has strides [-9223372036854775808,16,8,1], expected a reach", \
      c->strides[K][0] = INT64_MIN) \
    X(stride_leaves_memory, BOTH, ARGUMENT, "k has byte_offset 0 and strides that leave the address space", \
      c->strides[K][0] = -(INT64_C(1) << 58)) \
    X(scores_overflow, BOTH | QUERIES, SHAPE, "expected a number of scores that fits 63 bits", \
      c->shape[Q][1] = c->shape[K][1] = c->shape[V][1] = INT64_C(1) << 40; memset(c->strides[Q], 0, 40); \
      memset(c->strides[K], 0, 40); memset(c->strides[V], 0, 40))

#define BAD_DEVICES(X) \
    X(q_cuda, FORWARD, DEVICE, "k is on kDLCPU:0, expected q's device kDLCUDA:1", \
      t[Q].device = (DLDevice){kDLCUDA, 1}) \
    X(all_cuda, BOTH | MASKS | MERGE | QUERIES, DEVICE, "no CUDA driver: libcuda.so.1 cannot be opened", \
      take_driver_away(); for (int i = 0; i < TENSORS; i++) t[i].device = (DLDevice){kDLCUDA, 0}) \
    X(all_managed, BOTH | MASKS | MERGE | QUERIES, DEVICE, "no CUDA driver: libcuda.so.1 cannot be opened", \
      take_driver_away(); for (int i = 0; i < TENSORS; i++) t[i].device = (DLDevice){kDLCUDAManaged, 0}) \
    X(v_cuda, BOTH | QUERIES, DEVICE, "v is on kDLCUDA:0, expected q's device kDLCPU:0", \
      t[V].device.device_type = kDLCUDA) \
    X(out_cuda, BOTH | QUERIES, DEVICE, "out is on kDLCUDAManaged:0, expected q's device", \
      t[OUT].device.device_type = kDLCUDAManaged) \
    X(q_metal, BOTH | MASKS | QUERIES, DEVICE, "q is on a device of type 8, expected kDLCPU (1)", \
      t[Q].device.device_type = kDLMetal) \
    X(device_unknown, BOTH | QUERIES, DEVICE, "k is on a device of type 99", \
      t[K].device.device_type = (DLDeviceType)99)

#define BAD_SHAPES(X) \
    X(k_batch, BOTH | QUERIES, SHAPE, "k has shape [3,5,2,8], expected [2,*,*,8] (q's batch and head size)", \
      c->shape[K][0] = 3) \
    X(k_head_size, BOTH | QUERIES, SHAPE, "k has shape [2,5,2,4], expected [2,*,*,8]", c->shape[K][3] = 4) \
    X(heads_do_not_divide, BOTH | QUERIES, SHAPE, "k has 3 heads, which does not divide q's 4", c->shape[K][2] = 3) \
    X(no_kv_heads, BOTH | QUERIES, SHAPE, "k has 0 heads, which does not divide q's 4", c->shape[K][2] = 0) \
    X(v_length, BOTH | QUERIES, SHAPE, "v has shape [2,4,2,6], expected [2,5,2,*] (k's batch, length and heads)", \
      c->shape[V][1] = 4) \
    X(v_heads, BOTH | QUERIES, SHAPE, "v has shape [2,5,1,6], expected [2,5,2,*]", c->shape[V][2] = 1) \
    X(head_size_0, BOTH | QUERIES, SHAPE, "q has head size D = 0, expected 1 to 256", c->shape[Q][3] = 0) \
    X(head_size_of_v_0, BOTH | QUERIES, SHAPE, "v has head size E = 0, expected 1 to 256", c->shape[V][3] = 0) \
    X(head_size_257, BOTH | QUERIES, UNSUPPORTED, "q has head size D = 257, expected 1 to 256", c->shape[Q][3] = 257) \
    X(head_size_of_v_300, BOTH | QUERIES, UNSUPPORTED, "v has head size E = 300, expected 1 to 256", \
      c->shape[V][3] = 300) \
    X(wrong_layout_given, BOTH | QUERIES, SHAPE, "k has 5 heads, which does not divide q's 3", \
      a->layout = DLATTN_BHSD) \
    X(out_shape, BOTH | QUERIES, SHAPE, "out has shape [2,3,4,5], expected [2,3,4,6] (q's with v's head size)", \
      c->shape[OUT][3] = 5) \
    X(lse_shape, BOTH | QUERIES, SHAPE, "lse has shape [2,3,4], expected [2,4,3] (q's batch, heads and length)", \
      c->shape[LSE][1] = 3; c->shape[LSE][2] = 4) \
    X(dout_shape, BACKWARD | QUERIES, SHAPE, "dout has shape [2,2,4,6], expected [2,3,4,6]", c->shape[DOUT][1] = 2) \
    X(dlse_shape, BACKWARD | QUERIES, SHAPE, "dlse has shape [1,4,3], expected [2,4,3]", \
      c->gradients.dlse = &t[DLSE]; c->shape[DLSE][0] = 1) \
    X(dq_shape, BACKWARD | QUERIES, SHAPE, "dq has shape [2,3,4,6], expected [2,3,4,8] (q's)", c->shape[DQ][3] = 6) \
    X(dk_shape, BACKWARD | QUERIES, SHAPE, "dk has shape [2,5,4,8], expected [2,5,2,8] (k's)", c->shape[DK][2] = 4) \
    X(dv_shape, BACKWARD | QUERIES, SHAPE, "dv has shape [2,5,2,8], expected [2,5,2,6] (v's)", c->shape[DV][3] = 8) \
    X(keep_shape, MASKS, SHAPE, "keep has shape [2,4,3,4], expected [2,4,3,5]", c->shape[KEEP][3] = 4) \
    X(keep_rank, MASKS, SHAPE, "keep has rank 3, expected 4: [B,H,M,N]", t[KEEP].ndim = 3) \
    X(keep_dtype, MASKS, DTYPE, "keep has dtype float32, expected bool or uint8", set_type(c, KEEP, kDLFloat, 32))

#define BAD_TERMS(X) \
    X(bias_rank_5, BOTH | QUERIES, SHAPE, "bias has rank 5, expected 1 to 4: [B,H,M,N]", \
      a->bias = &t[BIAS]; t[BIAS].ndim = 5) \
    X(bias_rank_0, BOTH | QUERIES, SHAPE, "bias has rank 0, expected 1 to 4", a->bias = &t[BIAS]; t[BIAS].ndim = 0) \
    X(bias_extent, BOTH | QUERIES, SHAPE, "bias has shape [2,4,3,4], expected extents of [B,H,M,N] = [2,4,3,5], or 1", \
      a->bias = &t[BIAS]; c->shape[BIAS][3] = 4) \
    X(bias_heads_not_kv_heads, BOTH | QUERIES, SHAPE, "bias has shape [2,2,3,5], expected extents of", \
      a->bias = &t[BIAS]; c->shape[BIAS][1] = 2) \
    X(bias_dtype, BOTH | QUERIES, DTYPE, "bias has dtype float16, expected float32", \
      a->bias = &t[BIAS]; set_type(c, BIAS, kDLFloat, 16)) \
    X(mask_dtype, BOTH | QUERIES, DTYPE, "mask has dtype int32, expected bool or uint8", \
      a->mask = &t[MASK]; set_type(c, MASK, kDLInt, 32)) \
    X(mask_extent, BOTH | QUERIES, SHAPE, "mask has shape [2,4,2,5], expected extents", \
      a->mask = &t[MASK]; c->shape[MASK][2] = 2) \
    X(slopes_extent, BOTH | QUERIES, SHAPE, "alibi_slopes has shape [2], expected [4]", \
      a->alibi_slopes = &t[SLOPES]; c->shape[SLOPES][0] = 2) \
    X(slopes_rank, BOTH | QUERIES, SHAPE, "alibi_slopes has rank 3, expected 1 to 2: [H] or [B,H]", \
      a->alibi_slopes = &t[SLOPES]; t[SLOPES].ndim = 3) \
    X(slopes_dtype, BOTH | QUERIES, DTYPE, "alibi_slopes has dtype int32, expected float32", \
      a->alibi_slopes = &t[SLOPES]; set_type(c, SLOPES, kDLInt, 32)) \
    X(sinks_extent, BOTH | QUERIES, SHAPE, "sinks has shape [2], expected [4] (q's heads)", \
      a->sinks = &t[SINKS]; c->shape[SINKS][0] = 2) \
    X(sinks_dtype, BOTH | QUERIES, DTYPE, "sinks has dtype float64, expected float32", \
      a->sinks = &t[SINKS]; set_type(c, SINKS, kDLFloat, 64)) \
    X(one_segment_tensor, BOTH | QUERIES, ARGUMENT, "kv_segments is NULL while q_segments is given", \
      a->q_segments = &t[Q_SEGMENTS]) \
    X(other_segment_tensor, BOTH | QUERIES, ARGUMENT, "q_segments is NULL while kv_segments is given", \
      a->kv_segments = &t[KV_SEGMENTS]) \
    X(segments_extent, BOTH | QUERIES, SHAPE, "kv_segments has shape [2,3], expected [2,5]", \
      a->q_segments = &t[Q_SEGMENTS]; a->kv_segments = &t[KV_SEGMENTS]; c->shape[KV_SEGMENTS][1] = 3) \
    X(segments_dtype, BOTH | QUERIES, DTYPE, "q_segments has dtype uint8, expected int32 or int64", \
      a->q_segments = &t[Q_SEGMENTS]; a->kv_segments = &t[KV_SEGMENTS]; set_type(c, Q_SEGMENTS, kDLUInt, 8)) \
    X(segments_packed, BOTH | QUERIES, ARGUMENT, "q_segments is given with cu_seqlens_q, expected padded q and k", \
      pack_q(c); a->q_segments = &t[Q_SEGMENTS]; a->kv_segments = &t[KV_SEGMENTS]) \
    X(dbias_without_bias, BACKWARD | QUERIES, ARGUMENT, "dbias is wanted but bias is NULL", \
      c->gradients.dbias = &t[DBIAS]) \
    X(dsinks_without_sinks, BACKWARD | QUERIES, ARGUMENT, "dsinks is wanted but sinks is NULL", \
      c->gradients.dsinks = &t[DSINKS]) \
    X(dbias_shape, BACKWARD | QUERIES, SHAPE, "dbias has shape [2,4,3,5], expected [1,4,3,5] (the shape of bias)", \
      a->bias = &t[BIAS]; c->shape[BIAS][0] = 1; c->gradients.dbias = &t[DBIAS]) \
    X(dbias_rank, BACKWARD | QUERIES, SHAPE, "dbias has rank 3, expected 4: the shape of bias", \
      a->bias = &t[BIAS]; t[DBIAS].ndim = 3; c->gradients.dbias = &t[DBIAS]) \
    X(dbias_dtype, BACKWARD | QUERIES, DTYPE, "dbias has dtype float64, expected float32", \
      a->bias = &t[BIAS]; set_type(c, DBIAS, kDLFloat, 64); c->gradients.dbias = &t[DBIAS]) \
    X(dsinks_shape, BACKWARD | QUERIES, SHAPE, "dsinks has shape [2], expected [4] (the shape of sinks)", \
      a->sinks = &t[SINKS]; c->shape[DSINKS][0] = 2; c->gradients.dsinks = &t[DSINKS])

#define BAD_NUMBERS(X) \
    X(scale_infinite, BOTH | MASKS | QUERIES, ARGUMENT, "scale is inf, expected a finite number", \
      a->flags = DLATTN_SCALE; a->scale = INFINITY) \
    X(scale_nan, BOTH | QUERIES, ARGUMENT, "scale is nan, expected a finite", a->flags = DLATTN_SCALE; a->scale = NAN) \
    X(scale_without_flag, BOTH | QUERIES, ARGUMENT, "scale is 0.5 without DLATTN_SCALE in flags", a->scale = 0.5) \
    X(softcap_negative, BOTH | QUERIES, ARGUMENT, "softcap is -1, expected 0 (off) or a positive", a->softcap = -1) \
    X(softcap_infinite, BOTH | QUERIES, ARGUMENT, "softcap is inf, expected 0", a->softcap = INFINITY) \
    X(softcap_nan, BOTH | QUERIES, ARGUMENT, "softcap is nan, expected 0", a->softcap = NAN) \
    X(dropout_negative, BOTH | MASKS | QUERIES, ARGUMENT, "dropout is -0.1, expected a probability from 0 to 1", \
      a->dropout = -0.1) \
    X(dropout_above_1, BOTH | MASKS | QUERIES, ARGUMENT, "dropout is 1.5, expected", a->dropout = 1.5) \
    X(dropout_nan, BOTH | MASKS | QUERIES, ARGUMENT, "dropout is nan, expected", a->dropout = NAN) \
    X(block_size_0, BOTH | QUERIES, ARGUMENT, "block_size is 0, expected 1 or more with DLATTN_BLOCK_WINDOW", \
      a->flags = DLATTN_BLOCK_WINDOW; a->block_count = 1) \
    X(block_count_negative, BOTH | QUERIES, ARGUMENT, "block_count is -2, expected 1 or more", \
      a->flags = DLATTN_BLOCK_WINDOW; a->block_size = 4; a->block_count = -2) \
    X(q_start_without_flag, BOTH | QUERIES, ARGUMENT, "q_start is set without DLATTN_POSITIONS", a->q_start = 3) \
    X(k_starts_without_flag, BOTH | QUERIES, ARGUMENT, "k_starts is set without DLATTN_POSITIONS", \
      a->k_starts = &t[K_STARTS]) \
    X(max_seqlen_negative, BOTH | QUERIES, ARGUMENT, "max_seqlen_k is -1, expected 0 (no bound) or more", \
      a->max_seqlen_k = -1) \
    X(flags_unknown, BOTH | MASKS | QUERIES, UNSUPPORTED, "attention has flags 0x401, expected none beyond 0xff", \
      a->flags = 0x401) \
    X(layout_unknown, BOTH | MASKS | QUERIES, UNSUPPORTED, "attention has layout 2, expected DLATTN_BSHD (0)", \
      a->layout = 2) \
    X(layout_negative, BOTH | QUERIES, UNSUPPORTED, "attention has layout -1", a->layout = -1) \
    X(paged_backward, BACKWARD, UNSUPPORTED, "block_table is given, expected NULL: paged keys have no backward", \
      a->block_table = &t[SEQLENS_K]) \
    X(paged_without_lengths, FORWARD | MASKS, ARGUMENT, "seqlens_k is NULL, expected the length of each paged sequence", \
      a->block_table = &t[SEQLENS_K])

#define BAD_LENGTHS(X) \
    X(cu_seqlens_rank, BOTH | QUERIES, SHAPE, "cu_seqlens_q has rank 2, expected 1: [B+1]", \
      pack_q(c); t[CU_Q].ndim = 2) \
    X(cu_seqlens_dtype, BOTH | QUERIES, DTYPE, "cu_seqlens_q has dtype float32, expected int32 or int64", \
      pack_q(c); set_type(c, CU_Q, kDLFloat, 32)) \
    X(cu_seqlens_empty, BOTH | QUERIES, SHAPE, "cu_seqlens_q has 0 elements", pack_q(c); c->shape[CU_Q][0] = 0) \
    X(cu_seqlens_batch, BOTH | QUERIES, SHAPE, "cu_seqlens_k has 2 elements, expected 3 (q's batch and one more)", \
      pack_k(c); c->shape[CU_K][0] = 2) \
    X(cu_seqlens_negative, BOTH, ARGUMENT, "cu_seqlens_q[0] is -1, expected 0 or more", \
      pack_q(c); ints(c, CU_Q, -1, 3, 6)) \
    X(cu_seqlens_falling, BOTH, ARGUMENT, "cu_seqlens_k[2] is 3, expected 5 (the one before) or more", \
      pack_k(c); ints(c, CU_K, 0, 5, 3)) \
    X(cu_seqlens_past_tokens, BOTH, ARGUMENT, "cu_seqlens_k[2] is 11, expected at most the 10 tokens of k", \
      pack_k(c); ints(c, CU_K, 0, 5, 11)) \
    X(seqlens_extent, BOTH | QUERIES, SHAPE, "seqlens_q has shape [3], expected [2] (the batch)", \
      a->seqlens_q = &t[SEQLENS_Q]; c->shape[SEQLENS_Q][0] = 3) \
    X(seqlens_dtype, BOTH | QUERIES, DTYPE, "seqlens_k has dtype uint32, expected int32 or int64", \
      a->seqlens_k = &t[SEQLENS_K]; set_type(c, SEQLENS_K, kDLUInt, 32)) \
    X(seqlens_too_long, BOTH, ARGUMENT, "seqlens_k[1] is 6, expected 0 to 5", \
      a->seqlens_k = &t[SEQLENS_K]; ints(c, SEQLENS_K, 5, 6, 0)) \
    X(seqlens_negative, BOTH, ARGUMENT, "seqlens_q[0] is -1, expected 0 to 3", \
      a->seqlens_q = &t[SEQLENS_Q]; ints(c, SEQLENS_Q, -1, 3, 0)) \
    X(seqlens_past_packed_part, BOTH, ARGUMENT, "seqlens_q[1] is 4, expected 0 to 3", \
      pack_q(c); a->seqlens_q = &t[SEQLENS_Q]; ints(c, SEQLENS_Q, 3, 4, 0)) \
    X(starts_extent, BOTH | QUERIES, SHAPE, "q_starts has shape [1], expected [2]", \
      a->flags = DLATTN_POSITIONS; a->q_starts = &t[Q_STARTS]; c->shape[Q_STARTS][0] = 1) \
    X(rng_state_extent, BOTH | MASKS | QUERIES, SHAPE, "rng_state has shape [3], expected [2] (two 64-bit integers", \
      a->rng_state = &t[RNG]; c->shape[RNG][0] = 3) \
    X(rng_state_halves_extent, BOTH | QUERIES, SHAPE, "rng_state has shape [2], expected [4]", \
      a->rng_state = &t[RNG]; set_type(c, RNG, kDLUInt, 32)) \
    X(rng_state_dtype, BOTH | QUERIES, DTYPE, "rng_state has dtype int32, expected int64, uint32 or uint64", \
      a->rng_state = &t[RNG]; set_type(c, RNG, kDLInt, 32))

#define BAD_ALIASES(X) \
    X(out_broadcast, FORWARD | MERGE | QUERIES_FORWARD, SHAPE, "out has strides [0,24,6,1] for shape [2,3,4,6]", \
      c->strides[OUT][0] = 0) \
    X(out_overlaps_itself, FORWARD | QUERIES_FORWARD, SHAPE, "an output that does not overlap itself", \
      c->strides[OUT][2] = 5) \
    X(dk_broadcast, BACKWARD, SHAPE, "dk has strides [80,16,0,1]", c->strides[DK][2] = 0) \
    X(keep_broadcast, MASKS, SHAPE, "keep has strides [60,0,5,1]", c->strides[KEEP][1] = 0) \
    X(out_is_q, FORWARD, SHAPE, "out starts at the address of q", t[OUT].data = t[Q].data) \
    X(out_is_v_by_offset, FORWARD, SHAPE, "out starts at the address of v", \
      t[OUT].data = c->memory; t[OUT].byte_offset = V * TENSOR_BYTES) \
    X(lse_is_out, FORWARD, SHAPE, "out starts at the address of lse", t[LSE].data = t[OUT].data) \
    X(out_overlaps_k, FORWARD, SHAPE, "out overlaps k", t[OUT].data = (char *)t[K].data + 64) \
    X(dq_is_dout, BACKWARD, SHAPE, "dq starts at the address of dout", t[DQ].data = t[DOUT].data) \
    X(dk_is_dv, BACKWARD, SHAPE, "dk starts at the address of dv", t[DK].data = t[DV].data) \
    X(dv_overlaps_lse, BACKWARD, SHAPE, "dv overlaps lse", t[DV].data = (char *)t[LSE].data + 4) \
    X(keep_is_q, MASKS, SHAPE, "keep starts at the address of q", t[KEEP].data = t[Q].data) \
    X(merged_is_part, MERGE, SHAPE, "merged out starts at the address of out[1]", \
      t[OUT].data = t[PART_OUT_1].data) \
    X(merged_lse_is_part, MERGE, SHAPE, "merged lse starts at the address of lse[0]", \
      t[LSE].data = t[PART_LSE_0].data)

#define BAD_MERGES(X) \
    X(parts_null, MERGE, ARGUMENT, "parts is NULL", c->p = NULL) \
    X(merged_null, MERGE, ARGUMENT, "merged is NULL", c->o = NULL) \
    X(parts_count_0, MERGE, ARGUMENT, "parts has count 0, expected 1", c->parts.count = 0) \
    X(parts_count_negative, MERGE, ARGUMENT, "parts has count -1, expected 1", c->parts.count = -1) \
    X(parts_out_null, MERGE, ARGUMENT, "parts has out NULL", c->parts.out = NULL) \
    X(parts_lse_null, MERGE, ARGUMENT, "parts has lse NULL", c->parts.lse = NULL) \
    X(part_null, MERGE, ARGUMENT, "out[1] is NULL", c->part_out[1] = NULL) \
    X(part_lse_null, MERGE, ARGUMENT, "lse[0] is NULL", c->part_lse[0] = NULL) \
    X(part_data_null, MERGE, ARGUMENT, "lse[1] has data NULL", t[PART_LSE_1].data = NULL) \
    X(part_shape, MERGE, SHAPE, "out[1] has shape [2,3,4,5], expected [2,3,4,6] (the shape of merged out)", \
      c->shape[PART_OUT_1][3] = 5) \
    X(part_lse_shape, MERGE, SHAPE, "lse[0] has shape [2,3,3], expected [2,4,3]", c->shape[PART_LSE_0][1] = 3) \
    X(part_rank, MERGE, SHAPE, "out[0] has rank 3, expected 4", t[PART_OUT_0].ndim = 3) \
    X(part_dtype, MERGE, DTYPE, "out[0] has dtype int32", set_type(c, PART_OUT_0, kDLInt, 32)) \
    X(part_lse_dtype, MERGE, DTYPE, "lse[1] has dtype float16, expected float32 or float64", \
      set_type(c, PART_LSE_1, kDLFloat, 16)) \
    X(part_device, MERGE, DEVICE, "out[1] is on kDLCUDA:0, expected merged out's device kDLCPU:0", \
      t[PART_OUT_1].device.device_type = kDLCUDA) \
    X(parts_layout, MERGE, UNSUPPORTED, "parts has layout 5", c->parts.layout = 5) \
    X(parts_reserved, MERGE, UNSUPPORTED, "parts has reserved0 1, expected 0", c->parts.reserved0 = 1)

#define BAD_STRUCTS(X) \
    X(attention_null, BOTH | MASKS, ARGUMENT, "attention is NULL", c->a = NULL) \
    X(outputs_null, FORWARD, ARGUMENT, "outputs is NULL", c->o = NULL) \
    X(gradients_null, BACKWARD, ARGUMENT, "gradients is NULL", c->g = NULL) \
    X(attention_of_the_past, BOTH | MASKS | QUERIES, ARGUMENT, "attention has struct_size 248, expected sizeof", \
      a->struct_size -= 8) \
    X(attention_size_0, BOTH | QUERIES, ARGUMENT, "attention has struct_size 0", a->struct_size = 0) \
    X(attention_size_negative, BOTH | QUERIES, ARGUMENT, "attention has struct_size -1", a->struct_size = -1) \
    X(attention_size_garbage, BOTH | QUERIES, ARGUMENT, "attention has struct_size 4611686018427387904", \
      a->struct_size = INT64_C(1) << 62) \
    X(outputs_of_the_past, FORWARD | MERGE | QUERIES_FORWARD, ARGUMENT, "has struct_size 16", \
      c->outputs.struct_size = 16) \
    X(gradients_of_the_past, BACKWARD, ARGUMENT, "gradients has struct_size 72", c->gradients.struct_size = 72) \
    X(parts_of_the_past, MERGE, ARGUMENT, "parts has struct_size 32", c->parts.struct_size = 32) \
    X(exec_of_the_past, WITHOUT_MESSAGE | BOTH | MASKS | MERGE | QUERIES, ARGUMENT, "exec has struct_size 48", \
      c->exec.struct_size = 48) \
    X(exec_reserved, BOTH | MASKS | MERGE | QUERIES, UNSUPPORTED, "exec has reserved0 7, expected 0", \
      c->exec.reserved0 = 7) \
    X(threads_negative, BOTH | MASKS | MERGE | QUERIES, ARGUMENT, "exec has num_threads -1, expected 0", \
      c->exec.num_threads = -1) \
    X(message_bytes_negative, WITHOUT_MESSAGE | BOTH | MASKS | MERGE | QUERIES, ARGUMENT, \
      "exec has message_bytes -5, expected 0", c->exec.message_bytes = -5) \
    X(stream_on_cpu, BOTH | MASKS | MERGE, ARGUMENT, "stream is not NULL, expected NULL", c->exec.stream = c) \
    X(workspace_unaligned, BOTH, WORKSPACE, "workspace lies at 8 past a multiple of 16", \
      c->exec.workspace = c->memory[KEEP] + 8; c->exec.workspace_bytes = 1024) \
    X(workspace_null_with_size, BOTH, WORKSPACE, "workspace is NULL, expected an address, as workspace_bytes is 64", \
      c->exec.workspace_bytes = 64)

#define BAD_INPUTS(X) \
    BAD_TENSORS(X) BAD_DEVICES(X) BAD_SHAPES(X) BAD_TERMS(X) BAD_NUMBERS(X) BAD_LENGTHS(X) BAD_ALIASES(X) \
    BAD_MERGES(X) BAD_STRUCTS(X)

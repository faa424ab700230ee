"""As FlashAttention's package of this name: rotary embeddings."""

"""The paper's analysis: one frozen projection, one split, decoders before and after fine-tuning."""

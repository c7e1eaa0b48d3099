"""Transformers and the layers around them, the only use of flax.

Layers keep the names under which checkpoints store them: `read` projects the input of a network, `answer` its output,
`lift` and `lower` are second layers of these; `look` scores positions for pooling, `remember` makes memory slots of a
latent, `beside` projects a condition, `bag` predicts the bag of words.
"""

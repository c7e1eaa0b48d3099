"""Names in configs stored by earlier versions, and what they are called now."""

CLASSES = {
    "jtextdiff.core.guidance:Guidance": "jtextdiff.sampling.guidance:Guidance",
    "jtextdiff.core.samplers:Sampler": "jtextdiff.sampling.gaussian_samplers:Sampler",
    "jtextdiff.core.unmasking:Unmasking": "jtextdiff.sampling.masked_samplers:Unmasking",
    "jtextdiff.methods.latents:LatentSampler": "jtextdiff.methods.components.latents:LatentSampler",
    "jtextdiff.methods.method:Language": "jtextdiff.methods.components.types:Language",
    "jtextdiff.methods.writing:Writer": "jtextdiff.methods.components.autoregressive_sampler:Writer",
    "jtextdiff.run.optim:AdamW": "jtextdiff.training.optimizer:AdamW",
    "jtextdiff.text.corpora:Text": "jtextdiff.data.corpus:Text",
}
"""Stored module:name of a dataclass ↦ today's."""

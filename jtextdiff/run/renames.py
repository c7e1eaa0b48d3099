"""Former names in stored configs, mapped to current ones."""

from typing import Any

CLASS = "class"
"""The key that names a dataclass in a config, as module:name."""

CLASSES = {
    "jtextdiff.core.guidance:Guidance": "jtextdiff.sampling.guidance:Guidance",
    "jtextdiff.core.samplers:Sampler": "jtextdiff.sampling.gaussian_samplers:Sampler",
    "jtextdiff.core.unmasking:Unmasking": "jtextdiff.sampling.masked_samplers:Unmasking",
    "jtextdiff.methods.d3pm:Ancestral": "jtextdiff.methods.d3pm:Sampler",
    "jtextdiff.methods.latents:LatentSampler": "jtextdiff.methods.components.latents:LatentSampler",
    "jtextdiff.methods.method:Language": "jtextdiff.methods.components.types:TextSpec",
    "jtextdiff.methods.writing:Writer": "jtextdiff.methods.components.autoregressive_sampler:DecodingSettings",
    "jtextdiff.run.optim:AdamW": "jtextdiff.training.optimizer:Optimizer",
    "jtextdiff.text.corpora:Text": "jtextdiff.data.corpus:Text",
}
"""Stored module:name of a dataclass ↦ its current one."""

_METHOD = {"language": "text_spec"}

FIELDS: dict[str, dict[str, str]] = {
    "jtextdiff.methods.autoregressive:Autoregressive": _METHOD,
    "jtextdiff.methods.classifier:Classifier": _METHOD,
    "jtextdiff.methods.cmlm:CMLM": _METHOD,
    "jtextdiff.methods.d3pm:D3PM": _METHOD,
    "jtextdiff.methods.components.latents:LatentSampler": {
        "averaged": "num_noise_averages",
        "law": "prior",
        "sharpen": "guidance_scale",
        "tau": "max_time",
    },
    "jtextdiff.methods.diffusion_lm:DiffusionLM": _METHOD
    | {
        "answers": "output",
        "bound_from": "bound_start",
        "doors": "projections",
        "reading": "parameterization",
        "times": "per_token_times",
        "vectors": "embeddings",
    },
    "jtextdiff.methods.latent_classifier:LatentClassifier": _METHOD
    | {"members": "ensemble_size", "rounds": "max_iterations", "most": "max_texts"},
    "jtextdiff.methods.masked:Masked": _METHOD | {"hidden": "masking", "weights": "loss_weighting"},
    "jtextdiff.training.optimizer:Optimizer": {"matrices": "matrix_optimizer"},
    "jtextdiff.methods.text_vae:TextVAE": _METHOD
    | {
        "bag": "bag_of_words_weight",
        "fit": "prior_fit",
        "hidden_read": "encoder_word_dropout",
        "hidden_written": "decoder_word_dropout",
        "importance": "importance_samples",
        "queries": "pooling_heads",
        "slots": "memory_slots",
        "untold": "label_dropout",
    },
    "jtextdiff.sampling.guidance:Guidance": {
        "move": "update_rule",
        "sees": "input",
        "enough": "energy_threshold",
        "first": "start",
        "last": "stop",
    },
}
"""Current module:name of a dataclass ↦ {stored field: its current name}."""

VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "jtextdiff.methods.classifier:Classifier": {"kind": {"stretches": "spans"}},
    "jtextdiff.methods.diffusion_lm:DiffusionLM": {"per_token_times": {"own": True, "shared": False}},
    "jtextdiff.methods.masked:Masked": {"masking": {"counted": "fixed_count", "timed": "bernoulli"}},
}
"""Current module:name of a dataclass ↦ {current field: {stored value: its current one}}."""

ABSENT: dict[str, dict[str, Any]] = {
    "jtextdiff.methods.diffusion_lm:DiffusionLM": {"embeddings": "learned"},
    "jtextdiff.methods.latent_classifier:LatentClassifier": {"learns_words": False},
}
"""Current module:name of a dataclass ↦ {current field: its value if a stored config lacks it, if not the default}."""


def with_current_names(stored: Any) -> Any:
    """Returns a stored config, a tree of dicts and lists, with every class, field and value under its current name."""
    if isinstance(stored, list):
        return [with_current_names(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    if CLASS not in stored:
        return {name: with_current_names(value) for name, value in stored.items()}
    stored_class = str(stored[CLASS])
    current_class = CLASSES.get(stored_class, stored_class)
    fields, values = FIELDS.get(current_class, {}), VALUES.get(current_class, {})
    renamed: dict[str, Any] = {CLASS: current_class}
    for former, value in stored.items():
        if former != CLASS:
            name = fields.get(str(former), str(former))
            value = values.get(name, {}).get(value, value) if isinstance(value, str) else value
            renamed[name] = with_current_names(value)
    return renamed


def current_name(field: str) -> str | None:
    """Returns the current name of a field that had this name in any dataclass before, else None."""
    return next((fields[field] for fields in FIELDS.values() if field in fields), None)

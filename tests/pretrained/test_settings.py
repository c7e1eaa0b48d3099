"""A checkpoint decides every setting of its network, so that none of a config is left to change it."""

import dataclasses
from typing import Any

import pytest
from support import published, published_bert, published_gpt2, published_llama, published_modernbert

from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.families import FAMILIES
from jtextdiff.pretrained.start import TRAINED_AND_COMPUTED

ABSENT = {"time_features", "context_dim", "fusion_rank"}
"""Settings of parts that these networks lack."""

CONFIGS = {kind: published.config_json(kind) for kind in ("mdlm", "bd3lm")}
CONFIGS |= {kind: published_llama.config_json(kind) for kind in published_llama.KINDS}
CONFIGS |= {"modernbert": published_modernbert.config_json()}
CONFIGS |= {"bert": published_bert.config_json(), "gpt2": published_gpt2.config_json()}


def fields(settings: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_checkpoint_decides_every_setting_of_its_network(config: dict[str, Any]) -> None:
    network = FAMILIES[config["model_type"]](config, "toy")
    left_open = fields(Transformer) - set(TRAINED_AND_COMPUTED) - ABSENT
    assert set(network.settings["trunk"]) == left_open
    if "head" in fields(network.method):
        assert set(network.settings["head"]) == fields(Head)


def test_every_family_is_tried() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()

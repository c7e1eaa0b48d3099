"""A checkpoint decides every setting of its network, so that none of a config is left to change it."""

import dataclasses

import pytest
from support import published, published_bert, published_gpt2, published_llama, published_modernbert, published_timed

from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.families import FAMILIES
from jtextdiff.pretrained.start import OUTSIDE_TRUNK, TRAINED_AND_COMPUTED

ABSENT = {"context_dim", "fusion_rank"}
"""Settings of parts that these networks lack."""

OF_TIME = {"time_features", "time_width"}
"""Settings of the time, which most of them do not read."""

CONFIGS = {kind: published.config_json(kind) for kind in ("mdlm", "bd3lm")}
CONFIGS |= {kind: published_llama.config_json(kind) for kind in published_llama.KINDS}
CONFIGS |= {"modernbert": published_modernbert.config_json()}
CONFIGS |= {kind: published_timed.CONFIGS[kind] for kind in ("sedd", "DUO", "udlm", "dit")}
CONFIGS |= {"bert": published_bert.config_json(), "gpt2": published_gpt2.config_json()}


def fields(settings: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_checkpoint_decides_every_setting_of_its_network(kind: str) -> None:
    network = FAMILIES[kind]({**CONFIGS[kind], "model_type": kind}, "toy")
    timed = network.settings.get("time_input", "none") != "none"
    left_open = fields(Transformer) - set(TRAINED_AND_COMPUTED) - ABSENT - (set() if timed else OF_TIME)
    assert set(network.settings["trunk"]) == left_open
    if "head" in fields(network.method):
        assert set(network.settings["head"]) == fields(Head)
    assert set(network.settings) == {"trunk", *OUTSIDE_TRUNK} & fields(network.method)


def test_every_family_is_tried() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()

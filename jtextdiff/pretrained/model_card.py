"""The model card of an exported run: what it is, how to use it, and the settings that it was trained with."""

import json
from typing import Any

from jtextdiff.pretrained.exported_layouts import Layout
from jtextdiff.run.config import Config, to_json

TEMPLATE = """# {name}

{about}

- trained for {step:,} steps of {batch_size:,} texts on {text}{init}
- vocabulary of {vocab_size:,} tokens; texts of up to {length:,} tokens
{scores}
## Use

```bash
python -m jtextdiff.train  --config {config_file} --config.init={name} --config.num_steps=0 \\
    --config.text.path=my_texts.txt --workdir runs/{name}                # import; more steps train it further
python -m jtextdiff.sample --checkpoint runs/{name}
```

## Settings

```json
{settings}
```
"""


def model_card(name: str, layout: Layout, config: Config, *, step: int, count: int, scores: str | None) -> str:
    """Returns the card of a run at a step; `scores` is the name of its file of scores."""
    spec, settings = config.method.text_spec, json.loads(to_json(config))
    settings["method"].pop("text_spec")  # a long table of lengths
    return TEMPLATE.format(
        name=name,
        about=layout.about.format(count=count),
        config_file=layout.config_file,
        step=step,
        batch_size=config.batch_size,
        text=_text(config),
        init=f", starting from {config.init}" if config.get("init") else "",
        vocab_size=spec.vocab_size,
        length=spec.length,
        scores=f"- scores: [{scores}]({scores})\n" if scores else "",
        settings=json.dumps(settings, indent=2, ensure_ascii=False),
    )


def _text(config: Config) -> Any:
    return config.text.path or "sentences of a grammar of restaurants"

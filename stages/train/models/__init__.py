"""RES models: LAVT with its backbones and tokenizer, and how a run's settings become one."""

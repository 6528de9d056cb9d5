"""Hardware profiles, model configs, units and the words shared by every other package.

The lowest floor: it imports nothing from the other packages. Modules: `errors` (user errors in one line),
`units` (exact SI and IEC quantities), `yaml_io`, `files`, `models` (ModelSpec from a Hugging Face config; its
parts are `model_spec`, `geometry`, `attention`, `formats`, `families`, `model_config`, `quantization`),
`kernels` (kernel vocabulary), `schema`, `profile` and `loader` (machine profiles).
"""

"""Which tokens of a context matter, without running a model: fitted processes, published tables, recorded scores.

What policies within a sequence ask (`policies.sequence.plan.Importance`) is answered by `synthetic.Synthetic`,
`table.Table` or `recorded.Recorded`; `spec.build` makes one from a scenario. None of them says anything of accuracy:
coverage is attention mass, no more. docs/importance.md has the formulas, the file format and what is uncertain.
"""

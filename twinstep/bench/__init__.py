"""What each way to train costs: ratios of runs that take turns, of those that train the same.

`training` times one example's variants and has `parity` judge the very runs; `costs` times the
judge itself; `process` gives every setting a process of its own; `rows` is what comes of it,
`table`, `markdown` and `plot` show that. Neither framework is imported here.
"""

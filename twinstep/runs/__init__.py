"""Examples at work: launch, run, verify, the gate, and the float64 run that both are held against.

Beside them the small programs that train each row of the optimizers' options, in both frameworks.
"""

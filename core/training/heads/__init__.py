"""Many small networks on the same inputs, trained as one batched product instead of one by one."""

"""A small Kubernetes API server of the tests' own: real list and watch, real kubectl can use it.

`store` has the objects and their history, `server` speaks HTTP, `python -m tests.kube` runs one by itself.
"""

"""OSDTW networks as ONNX files.

``graph`` writes the file, ``parity`` holds it against PyTorch, ``runtime`` runs it without PyTorch, ``metadata``
is what it says about itself. Nothing is imported here: the runtime must start without torch.
"""

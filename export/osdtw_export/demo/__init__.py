"""A network as a folder of static pages: it runs in the visitor's browser, with no server behind it.

``page`` holds the pages as visitors get them; everything that differs from network to network is in ``model.json``.
"""

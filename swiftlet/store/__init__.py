"""Layer 2: content-addressed files (put, link, verify, collect) and the names that keep them.

Nothing here knows where a file comes from (`resolve`) or how a guest uses it (`guest`). The folder's drawing
is in `layout`; how a collection runs beside pulls and starts is told in `guard`.
"""

"""Files on this machine, in object stores and behind http.

`addresses` tells paths from URIs, `remote` opens URIs, `listing`, `reading` and `presence` find files and read them.
`folder` is a folder to write into, `whole` has files and folders that appear only when they are whole.

Two libraries open stores. Videos, annotations and models are read with fsspec, the one that reads http and gives a
file's ETag; it comes with the `extract` extra. Exports and training write through pyarrow's file systems: the base
install has them, and they take Lance's S3 options.
"""

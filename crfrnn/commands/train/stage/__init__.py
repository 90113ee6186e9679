"""One stage of a training, run by Lightning: several devices and machines, mixed precision, the loop.

Lightning is an extra and takes seconds to import: only `fit`, `task` and `keeper` need it, and
`crfrnn.commands.train.train` loads them when a training begins.

Everything that happens is a function of the recipe and of the position (epoch, batch): the batches, and through a
seed for each batch also dropout. A checkpoint therefore holds the position in place of Lightning's own loop counters,
and a training that goes on from it, at an epoch's end or in its middle, gives the same weights to the last bit (on the
CPU with the same number of threads; on a GPU as far as its kernels are deterministic).
"""

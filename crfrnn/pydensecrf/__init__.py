"""pydensecrf's own names on top of this package: change the import line and keep the script.

``import crfrnn.pydensecrf.densecrf as dcrf`` and ``from crfrnn.pydensecrf.utils import unary_from_softmax``.
"""

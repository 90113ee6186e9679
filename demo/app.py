"""The page of `crfrnn serve` as a Hugging Face Space; `python app.py` starts it anywhere else, too."""

import os

from crfrnn.web.options import ServeOptions
from crfrnn.web.serve import serve

if __name__ == "__main__":
    options = ServeOptions(
        host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        model=os.environ.get("CRFRNN_MODEL"),
    )
    serve(options)

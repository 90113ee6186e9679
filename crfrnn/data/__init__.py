"""Reading and writing: photographs, label maps, predictions, folders of them."""

"""timm models behind one contract: an encoder knows its image size, grid and width, and a way to hide patches."""
